"""Result files of a training and an evaluation as the stages write them, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.config import Benchmark, config_hash, for_training, resolved_yaml
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.layout import Layout
from pipeline.models import build_segmentor
from pipeline.tracking.runs import stage_run
from pipeline.training.loop import save_weights
from pipeline.training.state import run_key

FINGERPRINT = "f" * 64
ITERATIONS = (10, 20, 30, 40)


def training_points() -> list[tuple[int, dict[str, float]]]:
    """What the training loop logs, in order."""
    points = [(i, {"train/epoch": 1 + i // 40, "train/lr": 0.01, "train/loss": 3.0 / i}) for i in ITERATIONS]
    return [*points, (40, {"validation/miou": 0.5, "validation/pixel_accuracy": 0.9})]


def write_training(root: Path, benchmark: Benchmark, seed: int) -> Path:
    """The folders `runs/{train,curves}/<benchmark>/<seed>`, with the weights of a fresh network; returns the first."""
    folder = Layout(root).train(benchmark.id, seed)
    model = build_segmentor(benchmark, len(get_dataset(benchmark.dataset.name).classes), pretrained=False)
    for name in ("last", "best"):
        save_weights(model, folder / f"{name}.safetensors")
    (folder / "config.yaml").write_text(resolved_yaml(for_training(benchmark)))
    rows = [{"iteration": i} | {k.removeprefix("train/"): v for k, v in p.items()} for i, p in training_points()[:-1]]
    curves = Layout(root).curves(benchmark.id, seed)
    curves.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["iteration", "epoch", "lr", "loss", "loss_coarse"])
    table.to_csv(curves / "history.csv", index=False)
    (curves / "validation.csv").write_text("epoch,iteration,miou,pixel_accuracy\n2,40,0.5,0.9\n")
    summary = {
        "benchmark": benchmark.id,
        "seed": seed,
        "config_hash": config_hash(benchmark),
        "run_key": run_key(benchmark, seed, FINGERPRINT, "float32"),
        "dataset": benchmark.dataset.name,
        "data_fingerprint": FINGERPRINT,
        "precision": "float32",
        "epochs": 2,
        "iterations": 40,
        "parameters": {"total": 2_000_000, "encoder": 1_500_000, "head": 500_000},
        "best": {"epoch": 2, "miou": 0.5},
        "final": {"loss": 0.075, "miou": 0.5},
    }
    cost = {
        "seconds": 60.0,
        "seconds_per_iteration": 1.5,
        "peak_memory_bytes": 2**30,
        "device": "cpu",
        "hardware": {},
        "libraries": {},
        "commit": "c0ffee",
        "dirty": False,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "cost.json").write_text(json.dumps(cost))
    return folder


def write_evaluation(root: Path, benchmark: Benchmark, seed: int) -> Path:
    """The folder `runs/evaluate/<benchmark>/<seed>`; one class never occurs and has no IoU."""
    folder = Layout(root).evaluate(benchmark.id, seed)
    details = folder / "details"
    (details / "predictions").mkdir(parents=True)
    scores = {"miou": 0.6, "pixel_accuracy": 0.9, "mean_accuracy": 0.7, "miou_low": 0.55, "miou_high": 0.65}
    metrics = {"single_scale": scores, "ms_flip": scores | {"miou": 0.62}, "images": 1, "split": "test"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "cost.json").write_text(json.dumps({"seconds": 5.0, "seconds_per_image": 5.0, "device": "cpu"}))
    (details / "per_class.csv").write_text(
        "class,single_scale_iou,ms_flip_iou,gt_share\nsky (blue),0.8,0.85,0.9\npole,0.4,0.39,0.1\nghost,,,0.0\n"
    )
    np.savez(details / "confusion.npz", single_scale=np.eye(3, dtype=np.int64), ms_flip=np.eye(3, dtype=np.int64))
    Image.fromarray(np.full((4, 4), 2, np.uint8)).save(details / "predictions" / "scene__1.png")
    identity = {"benchmark": benchmark.id, "seed": seed, "config_hash": config_hash(benchmark)}
    identity["run_key"] = run_key(benchmark, seed, FINGERPRINT, "float32")
    evaluated = {"dataset": "digits", "split": "test", "protocol": benchmark.inference.model_dump(mode="json")}
    (details / "evaluation.json").write_text(json.dumps(identity | evaluated))
    return folder


def track_both_stages(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> None:
    """A training and an evaluation as the stages track them."""
    with stage_run(root, benchmark, seed, "train", runtime) as run:
        for step, values in training_points():
            run.log(step, values)
        write_training(root, benchmark, seed)
    with stage_run(root, benchmark, seed, "evaluate-msflip", runtime):
        write_evaluation(root, benchmark, seed)
