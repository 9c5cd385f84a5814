"""A run as a training leaves it, with random weights in place of trained ones."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Benchmark, config_hash, for_training, resolved_yaml
from pipeline.datasets import get_dataset
from pipeline.files.storage import write_json
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor
from pipeline.training.loop import save_weights
from pipeline.training.results import write_cost, write_summary

SCORES = {"miou": 0.61, "miou_low": 0.58, "miou_high": 0.64, "pixel_accuracy": 0.9, "mean_accuracy": 0.7}


def lively(model: Segmentor) -> Segmentor:
    """`model` in evaluation mode, with statistics, a memory and a classifier that tell places apart."""
    generator = torch.Generator().manual_seed(1)
    for name, values in model.state_dict().items():
        if name.endswith("running_mean"):
            values.copy_(0.1 * torch.randn(values.shape, generator=generator))
        elif name.endswith("memory.memory"):
            values.copy_(torch.randn(values.shape, generator=generator))
    with torch.no_grad():
        model.final_decoder[-1].weight.normal_(std=2, generator=generator)
    return model.eval()


def write_run(root: Path, benchmark: Benchmark, seed: int = 0, planned: bool = True) -> Path:
    """The files of `runs/train` and, if `planned`, of `runs/plan` that an export reads; returns the former's folder.

    Both checkpoints are there: `best` has another bias.
    """
    layout = Layout(root)
    out = layout.train(benchmark.id, seed)
    torch.manual_seed(seed)
    model = lively(build_segmentor(benchmark, len(get_dataset(benchmark.dataset.name).classes)))
    save_weights(model, out / "last.safetensors")
    torch.nn.init.ones_(model.final_decoder[-1].bias)
    save_weights(model, out / "best.safetensors")
    write_summary(
        out,
        for_training(benchmark),
        model,
        seed=seed,
        run_key=f"key-{seed}",
        data_fingerprint="fingerprint",
        precision="float32",
        epochs=2,
        iterations=10,
        weights=None,
        checkpoint=None,
        best=None,
        final=None,
    )
    write_cost(out, root, torch.device("cpu"), datetime.datetime.now(datetime.UTC), 1.0, 0.1, 0)
    if planned:
        layout.plan.mkdir(parents=True, exist_ok=True)
        layout.resolved(benchmark.id).write_text(resolved_yaml(benchmark), encoding="utf-8")
    return out


def write_scores(root: Path, benchmark: Benchmark, seed: int = 0, **changes: Any) -> None:
    """The files of `runs/evaluate` that an export reads; `changes` to details/evaluation.json."""
    out = Layout(root).evaluate(benchmark.id, seed)
    about = {"images": 200, "split": "test"}
    write_json(out / "metrics.json", {"single_scale": SCORES, "ms_flip": SCORES, **about, "submission": None})
    details = {
        "config_hash": config_hash(benchmark),
        "run_key": f"key-{seed}",
        **about,
        "protocol": benchmark.inference.model_dump(mode="json"),
    }
    write_json(out / "details" / "evaluation.json", details | changes)
