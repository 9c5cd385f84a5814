"""The training loop: epochs over iterations, validation at intervals, and a state to resume from.

A run that is killed at any moment and started again ends with the same weights, bit for bit on the CPU: the state holds
model, optimiser, scaler, generators and position, and every sample's augmentation depends on (seed, epoch, index) only.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save
from tqdm import tqdm

from pipeline.config.schema import RuntimeConfig
from pipeline.datasets.loader import TrainBatch, TrainLoader
from pipeline.errors import PipelineError
from pipeline.files.storage import new_file
from pipeline.runtime.distributed import copy_buffers_from_main, gather_on_main, ranks, sum_over_ranks
from pipeline.training.state import load_state, random_state, restore_random_state, save_state
from pipeline.training.step import Trainer, training_step

Log = Callable[[int, dict[str, float]], None]
Validate = Callable[[], dict[str, float]]


@dataclass
class Progress:
    """What accumulates over a run and travels in the state, besides weights and generators."""

    iteration: int = 0  # optimiser steps done
    history: list[dict[str, float]] = field(default_factory=list)  # one row per log point
    validation: list[dict[str, float]] = field(default_factory=list)  # one row per validation
    first_epoch_memory: torch.Tensor | None = None  # (K, S, C) after epoch 1
    seconds: float = 0.0  # of training, over all sessions
    peak_memory: int = 0  # bytes


def train(
    trainer: Trainer, loader: TrainLoader, validate: Validate, runtime: RuntimeConfig, state_dir: Path, log: Log
) -> Progress:
    """Train to the end of the schedule, resuming from `state_dir` when it holds a state.

    validate: scores of the current model, among them `miou` (fraction); the weights of the best ones are kept as
    `state_dir/best.safetensors`. log: called with (iteration, values) at every log point and validation. On SIGINT or
    SIGTERM the current iteration is finished and saved, then KeyboardInterrupt is raised. Raises PipelineError when a
    training image cannot be read, once the state is saved, and when a step is not finite, once its batch is kept beside
    the last state. Every rank runs all of this; the main one alone logs and writes.
    """
    progress = _resume(trainer, state_dir)
    schedule, per_epoch = trainer.benchmark.schedule, loader.iterations_per_epoch
    started, seconds_before = time.perf_counter(), progress.seconds

    def save() -> None:
        progress.seconds = seconds_before + time.perf_counter() - started
        progress.peak_memory = max(progress.peak_memory, peak_memory(trainer.device))
        random = gather_on_main(random_state())
        if ranks().is_main:
            parts = {"model": trainer.model, "optimizer": trainer.optimizer, "scaler": trainer.scaler}
            states = {name: part.state_dict() for name, part in parts.items()}
            save_state(state_dir, states | {"random": random, "progress": vars(progress)})

    with (
        _stop_request() as stop_requested,
        tqdm(
            total=trainer.total_iterations,
            initial=progress.iteration,
            desc=trainer.benchmark.id,
            unit="it",
            dynamic_ncols=True,
            disable=not ranks().is_main,
        ) as bar,
    ):
        for epoch in range(progress.iteration // per_epoch + 1, schedule.epochs + 1):
            trainer.model.train()
            batches = loader.epoch(epoch, start=progress.iteration % per_epoch)
            while (parts := _next_batch(batches, save)) is not None:
                values = _step(trainer, parts, progress.iteration, epoch, state_dir)
                progress.iteration += 1
                stop = _any_rank(stop_requested())
                bar.update()
                if progress.iteration % runtime.log_every == 0 or progress.iteration == trainer.total_iterations:
                    row = {"iteration": progress.iteration, "epoch": epoch}
                    row |= {name: float(value) for name, value in values.items()}
                    progress.history.append(row)
                    log(progress.iteration, {f"train/{name}": row[name] for name in row if name != "iteration"})
                    bar.set_postfix(epoch=epoch, loss=f"{row['loss']:.3f}", lr=f"{row['lr']:.2e}")
                # A state saved at the end of an epoch must hold its validation: that one is written below.
                within_epoch = progress.iteration % per_epoch != 0
                if within_epoch and (stop or progress.iteration % runtime.save_every == 0):
                    save()
                if within_epoch and stop:
                    raise KeyboardInterrupt(f"stopped after iteration {progress.iteration}; run again to resume")
            _end_epoch(trainer, progress, epoch, validate, state_dir, log)
            save()
            if _any_rank(stop_requested()):
                raise KeyboardInterrupt(f"stopped after epoch {epoch}; run again to resume")
    return progress


def _next_batch(batches: Iterator[list[TrainBatch]], save: Callable[[], None]) -> list[TrainBatch] | None:
    """This rank's share of the next batch, None after the last. When a rank cannot read an image, all save and stop."""
    parts, problem = None, None
    try:
        parts = next(batches, None)
    except PipelineError as error:
        problem = error
    if _any_rank(problem is not None):
        save()
        raise problem or PipelineError("another process could not read an image; see its message")
    return parts


def _step(trainer: Trainer, parts: list[TrainBatch], iteration: int, epoch: int, state_dir: Path) -> dict[str, Any]:
    placed = [
        (part.images.to(trainer.device, non_blocking=True), part.labels.to(trainer.device, non_blocking=True))
        for part in parts
    ]
    try:
        return training_step(trainer, placed, iteration, epoch)
    except PipelineError as error:
        ids = [image_id for part in parts for image_id in part.ids]
        record = state_dir / f"failed_step.{ranks().rank}.pt"
        with new_file(record) as stream:
            batch = {"iteration": iteration, "epoch": epoch, "ids": ids, "parts": placed}
            torch.save(batch | {"model": trainer.model.state_dict()}, stream)
        raise PipelineError(
            f"{error}\nImages of the batch: {', '.join(ids)}\n{record} keeps this batch and the model that met it "
            "(torch.load); the last saved state is beside it"
        ) from error


def _any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank: all have to stop after the same iteration."""
    count = torch.tensor(int(flag))
    sum_over_ranks(count)
    return bool(count)


def _end_epoch(trainer: Trainer, progress: Progress, epoch: int, validate: Validate, state_dir: Path, log: Log) -> None:
    """Memory snapshot after the first epoch; validation at intervals and at the end, keeping the best weights."""
    schedule, memory = trainer.benchmark.schedule, trainer.model.memory
    if epoch == 1 and memory is not None:
        progress.first_epoch_memory = memory.vectors().detach().cpu().clone()
    if epoch % schedule.validate_every and epoch != schedule.epochs:
        return
    copy_buffers_from_main(trainer.model)
    scores = validate()
    log(progress.iteration, {f"validation/{name}": score for name, score in scores.items()})
    best_so_far = not progress.validation or scores["miou"] > max(row["miou"] for row in progress.validation)
    if best_so_far and ranks().is_main:
        save_weights(trainer.model, state_dir / "best.safetensors")
    progress.validation.append({"epoch": epoch, "iteration": progress.iteration} | scores)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """The model's state dict as safetensors, written atomically."""
    with new_file(path) as stream:
        stream.write(save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}))


def _resume(trainer: Trainer, state_dir: Path) -> Progress:
    state = load_state(state_dir)
    if state is None:
        return Progress()
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    restore_random_state(state["random"][ranks().rank])
    progress = Progress(**state["progress"])
    if ranks().is_main:
        tqdm.write(f"{trainer.benchmark.id}: resuming after iteration {progress.iteration}")
    return progress


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated by torch on a GPU, resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes where Linux counts KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop after the iteration; the same one again acts at once."""
    # The other one does not: after Ctrl-C torchrun sends SIGTERM to ranks that are about to stop anyway.
    requested: set[int] = set()

    def request(number: int, frame: FrameType | None) -> None:
        if number in requested:
            raise KeyboardInterrupt
        requested.add(number)

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requested)
    except RuntimeError as error:
        # SIGTERM to the whole process group also ends the loader's workers, which breaks the current iteration.
        if requested:
            raise KeyboardInterrupt("stopped; run again to resume from the last saved iteration") from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
