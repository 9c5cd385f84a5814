"""Benchmarks for tests of the networks: only encoder, segmentor and memory matter, the rest is filled in."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config import Benchmark, load_project, load_resolved
from pipeline.config.parse import parse
from pipeline.layout import Layout
from pipeline.training.loop import Log
from pipeline.training.optimizer import build_optimizer
from pipeline.training.step import Trainer
from pipeline.training.train import train_benchmark

SMALL_ENCODER = {"name": "tu-mobilenetv3_small_050", "depth": 4}


def benchmark(
    framework: str = "fcn", memory: dict | None = None, encoder: dict | None = None, **segmentor
) -> Benchmark:
    """A valid benchmark; `memory={}` is a memory with its defaults, None is none."""
    return parse(
        Benchmark,
        {
            "id": "test",
            "description": "a network for tests",
            "dataset": {"name": "none"},
            "encoder": encoder or SMALL_ENCODER,
            "segmentor": {"framework": framework, **segmentor},
            "memory": memory,
            "schedule": {"epochs": 1, "batch_size": 2},
            "augmentation": {"crop": (64, 64)},
        },
        "tests",
    )


def small_benchmark(framework="fcn", memory=None, **segmentor) -> Benchmark:
    """The same with a narrow head, quick on a CPU."""
    return benchmark(framework, memory, **{"channels": 16, "attention_channels": 8, **segmentor})


def trainer_of(
    config: Benchmark,
    model: nn.Module,
    parallel: nn.Module | None = None,
    total: int = 10,
    device: str = "cpu",
    class_weights: Tensor | None = None,
) -> Trainer:
    """What `training_step` needs to train `model` for `total` iterations."""
    scaler, optimizer = torch.amp.GradScaler(device, enabled=False), build_optimizer(model, config.optimizer)
    parallel = model if parallel is None else parallel
    return Trainer(config, model, parallel, optimizer, scaler, torch.device(device), "float32", total, class_weights)


def train_tiny(root: Path, seed: int = 0, log: Log = lambda step, values: None) -> None:
    """Train tiny-fcn-mcibi as the plan of the project `root` has it."""
    benchmark = load_resolved(Layout(root).resolved_for("train", "tiny-fcn-mcibi"))
    train_benchmark(root, benchmark, seed, load_project(root).runtime, log)
