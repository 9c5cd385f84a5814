"""The files of `runs/train` and `runs/curves` that a training and an import have in common."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.config import Benchmark, config_hash, resolved_yaml
from pipeline.files.storage import new_file, write_json
from pipeline.models import Segmentor
from pipeline.runtime.provenance import hardware, libraries, loaded_code

_HISTORY_COLUMNS = (
    *("iteration", "epoch", "lr", "loss", "loss_final", "loss_coarse", "loss_auxiliary", "loss_consistency"),
    *("grad_norm", "memory_momentum"),
)
_VALIDATION_COLUMNS = ("epoch", "iteration", "miou", "pixel_accuracy")


def write_summary(
    out: Path,
    benchmark: Benchmark,
    model: Segmentor,
    *,
    seed: int,
    run_key: str,
    data_fingerprint: str,
    precision: str,
    epochs: int,
    iterations: int,
    weights: str | None,
    checkpoint: dict[str, Any] | None,
    best: dict[str, Any] | None,
    final: dict[str, Any] | None,
    **more: Any,
) -> None:
    """`config.yaml` and `summary.json`: what the weights beside them are. They depend on neither machine nor hour.

    precision: see `runtime.distributed.arithmetic`. weights: sha256 of the file that was started from. checkpoint:
    that file, when it was a published one (mode import). best, final: scores of a training on the validation split.
    """
    with new_file(out / "config.yaml") as stream:
        stream.write(resolved_yaml(benchmark).encode())
    summary = {
        "benchmark": benchmark.id,
        "mode": benchmark.mode,
        "seed": seed,
        "config_hash": config_hash(benchmark),
        "run_key": run_key,
        "dataset": benchmark.dataset.name,
        "data_fingerprint": data_fingerprint,
        "precision": precision,
        "epochs": epochs,
        "iterations": iterations,
        "parameters": _parameters(model),
        "weights": weights,
        "checkpoint": checkpoint,
        "best": best,
        "final": final,
        **more,
    }
    write_json(out / "summary.json", summary)


def write_curves(out: Path, history: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> None:
    """`history.csv` (one row per log point) and `validation.csv`; without rows, their header lines."""
    for name, rows, columns in (
        ("history.csv", history, _HISTORY_COLUMNS),
        ("validation.csv", validation, _VALIDATION_COLUMNS),
    ):
        with new_file(out / name) as stream:
            pd.DataFrame(rows, columns=columns).to_csv(stream, index=False)


def write_cost(
    out: Path,
    root: Path,
    device: torch.device,
    started: datetime.datetime,
    seconds: float,
    seconds_per_iteration: float | None,
    peak_memory: int,
) -> None:
    """What depends on the machine and the hour, in a file of its own so that no later result hangs on it."""
    commit, dirty = loaded_code(root)
    cost: dict[str, Any] = {
        "seconds": seconds,
        "seconds_per_iteration": seconds_per_iteration,
        "peak_memory_bytes": peak_memory,
        "device": str(device),
        "hardware": hardware(),
        "libraries": libraries(),
        "commit": commit,
        "dirty": dirty,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(out / "cost.json", cost)


def _parameters(model: Segmentor) -> dict[str, int]:
    """Trainable parameters; the memory is a buffer and not among them."""
    total = sum(p.numel() for p in model.parameters())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    return {"total": total, "encoder": encoder, "head": total - encoder}
