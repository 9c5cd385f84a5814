"""What a training and an import of a published checkpoint record alike."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Benchmark, config_hash
from pipeline.models import Segmentor
from pipeline.results.record import Cost, Memory
from pipeline.runtime.provenance import hardware, libraries, loaded_code


def identity(benchmark: Benchmark, seed: int, run_key: str, fingerprint: str, precision: str) -> dict[str, Any]:
    """The fields of a TrainingRecord that say which run it is. fingerprint: of the prepared data."""
    return {
        "benchmark": benchmark.id,
        "mode": benchmark.mode,
        "seed": seed,
        "config_hash": config_hash(benchmark),
        "run_key": run_key,
        "dataset": benchmark.dataset.name,
        "data_fingerprint": fingerprint,
        "precision": precision,
    }


def parameter_counts(model: Segmentor) -> dict[str, int]:
    """Number of parameters; the memory is a buffer and not among them."""
    total = sum(p.numel() for p in model.parameters())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    return {"total": total, "encoder": encoder, "head": total - encoder}


def memory_record(model: Segmentor, first_epoch: torch.Tensor | None) -> Memory | None:
    """The memory for `TrainingFiles.write`; first_epoch: (K, S, C) after the first epoch, None for an import."""
    if model.memory is None:
        return None
    final = model.memory.memory.detach().cpu().numpy()  # (K, S, C)
    return Memory(None if first_epoch is None else first_epoch.numpy(), final, (final != 0).any(axis=-1))


def untouched_classes(model: Segmentor, classes: Sequence[str]) -> list[str]:
    """Classes whose memory vectors are all zero: no pixel of theirs was ever seen."""
    if model.memory is None:
        return []
    touched = (model.memory.memory != 0).flatten(1).any(dim=1).tolist()  # (K,)
    return [name for name, seen in zip(classes, touched, strict=True) if not seen]


def cost_now(
    root: Path,
    device: torch.device,
    started: datetime.datetime,
    seconds: float,
    seconds_per_iteration: float | None,
    peak_memory: int,
) -> Cost:
    """Time, machine and code of a run that ends now."""
    commit, dirty = loaded_code(root)
    return Cost(
        seconds=seconds,
        seconds_per_iteration=seconds_per_iteration,
        peak_memory_bytes=peak_memory,
        device=str(device),
        hardware=hardware(),
        libraries=libraries(),
        commit=commit,
        dirty=dirty,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
