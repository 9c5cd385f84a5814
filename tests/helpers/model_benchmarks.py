"""Benchmarks for tests of the networks: only encoder, segmentor and memory matter, the rest is filled in."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipeline.config import Benchmark, load_project, load_resolved
from pipeline.config.parse import parse
from pipeline.layout import Layout
from pipeline.models import SegmentorOutput
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


class Plain(nn.Module):
    """A network of two convolutions, without norm and memory, whose logits are as large as its input."""

    memory = None

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, num_classes, 1))

    def forward(self, images: Tensor) -> SegmentorOutput:
        return SegmentorOutput(self.layers(images), None, (), None)


class Strided(nn.Module):
    """In place of a segmentor of 5 classes a fixed convolution at stride 4, whose padding makes positions differ.

    It remembers the shapes of its inputs and the type of its logits.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 5, stride=4, padding=2)
        self.calls: list[tuple[int, ...]] = []
        self.dtype: torch.dtype | None = None

    def forward(self, images: Tensor) -> SimpleNamespace:
        self.calls.append(tuple(images.shape))
        logits = 4 * self.conv(images)
        self.dtype = logits.dtype
        return SimpleNamespace(logits=logits)


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
