"""What a training and an import of a published checkpoint record alike."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Benchmark, config_hash
from pipeline.models import Segmentor
from pipeline.results.record import Cost, Memory, TrainingRecord, late_loss
from pipeline.runtime.provenance import hardware, libraries, loaded_code
from pipeline.training.loop import Progress
from pipeline.training.state import Identity


def training_record(
    benchmark: Benchmark,
    model: Segmentor,
    seed: int,
    identity: Identity,
    classes: Sequence[str],
    progress: Progress,
    checkpoint: dict[str, Any] | None = None,
) -> TrainingRecord:
    """The record of `model`, whose K classes have these names. An import has a checkpoint, and no curves."""
    total = sum(p.numel() for p in model.parameters())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    history, validation = progress.history, progress.validation
    best = max(validation, key=lambda row: row["miou"], default=None)
    touched = [] if model.memory is None else model.memory.written().any(dim=1).tolist()  # (K,)
    return TrainingRecord(
        benchmark=benchmark.id,
        mode=benchmark.mode,
        seed=seed,
        config_hash=config_hash(benchmark),
        run_key=identity.run_key,
        dataset=benchmark.dataset.name,
        data_fingerprint=identity.fingerprint,
        precision=identity.precision,
        epochs=0 if checkpoint else benchmark.schedule.epochs,
        iterations=progress.iteration,
        parameters={"total": total, "encoder": encoder, "head": total - encoder},
        flops=_flops(model, benchmark.augmentation.crop),
        weights=identity.weights_sha256,
        checkpoint=checkpoint,
        best=best and {"epoch": best["epoch"], "miou": best["miou"]},
        final={"miou": validation[-1]["miou"]} if validation else None,
        training_loss=late_loss(history) if history else None,
        untouched_memory=[name for name, seen in zip(classes, touched, strict=False) if not seen],
    )


def _flops(model: Segmentor, size: tuple[int, int]) -> int:
    """Of the forward pass of one image in evaluation mode, counted without any arithmetic."""
    twin = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(1, 3, *size, device="meta", dtype=next(twin.parameters()).dtype))
    return counter.get_total_flops()


def memory_record(model: Segmentor, progress: Progress) -> Memory | None:
    """The memory for `TrainingFiles.write`."""
    if model.memory is None:
        return None
    first, final = progress.first_epoch_memory, model.memory.vectors().detach().cpu().numpy()  # (K, S, C) each
    return Memory(None if first is None else first.numpy(), final, model.memory.written().cpu().numpy())


def cost_now(root: Path, device: torch.device, started: datetime.datetime, progress: Progress) -> Cost:
    """Time, machine and code of a run that ends now."""
    commit, dirty = loaded_code(root)
    return Cost(
        seconds=progress.seconds,
        seconds_per_iteration=progress.seconds / progress.iteration if progress.iteration else None,
        peak_memory_bytes=progress.peak_memory,
        device=str(device),
        hardware=hardware(),
        libraries=libraries(),
        commit=commit,
        dirty=dirty,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
