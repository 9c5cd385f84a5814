"""One optimiser step, in the order that the goldens fix (METHOD sections 4 and 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.schema import Benchmark
from pipeline.errors import PipelineError
from pipeline.models import Segmentor
from pipeline.models.memory_update import MemoryStatistics
from pipeline.runtime.device import autocast
from pipeline.runtime.distributed import ranks, sum_over_ranks
from pipeline.training.losses import consistency_loss, pixel_losses, valid_pixels
from pipeline.training.optimizer import set_lr
from pipeline.training.schedule import memory_momentum, poly_lr

Part = tuple[Tensor, Tensor]  # images (B, 3, H, W) float32 normalised, labels (B, H, W) int64 with 255 = ignore


@dataclass(frozen=True)
class Trainer:
    """What a step needs and changes: model, optimiser and (float16 only) the gradient scaler."""

    benchmark: Benchmark
    model: Segmentor
    parallel: nn.Module  # `model`, or `model` compiled, or wrapped to run together with the other ranks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str
    total_iterations: int


def training_step(trainer: Trainer, parts: Sequence[Part], iteration: int, epoch: int) -> dict[str, Tensor | float]:
    """Forward, memory update, losses, backward, optimiser step, over this rank's `parts` of the global batch.

    Losses are averaged over the valid pixels of the global batch and the memory takes its statistics from all of it, so
    neither depends on how many ranks and parts there are. iteration counts from 0 over the whole run, epoch from 1.
    Returns detached scalars: lr, loss, loss_<term>, grad_norm and, with a memory, memory_momentum. Raises PipelineError
    when the loss or (unless float16's scaler deals with it) the gradient is not finite; parameters are then still those
    before the step, while the memory and the running statistics of batch norm have seen the batch.
    """
    benchmark, optimizer, scaler = trainer.benchmark, trainer.optimizer, trainer.scaler
    lr = poly_lr(iteration, trainer.total_iterations, benchmark.optimizer, benchmark.schedule)
    set_lr(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    values: dict[str, Tensor | float] = {"lr": lr}
    if trainer.model.memory is not None and trainer.model.memory.updated:
        values["memory_momentum"] = memory_momentum(lr, benchmark.memory, benchmark.optimizer)

    valid = torch.stack([valid_pixels(labels) for _, labels in parts]).sum()
    sum_over_ranks(valid)
    totals: dict[str, Tensor] = {}
    statistics: MemoryStatistics | None = None
    for index, (images, labels) in enumerate(parts):
        last = index == len(parts) - 1
        with autocast(trainer.device, trainer.precision), _gradients_stay_here(trainer.parallel, unless=last):
            output = trainer.parallel(images)
            terms = pixel_losses(output, labels, benchmark.loss, valid)
            loss = torch.stack(list(terms.values())).sum()
            if trainer.model.memory is not None and trainer.model.memory.updated:
                own = trainer.model.memory.statistics(output.representations.detach().float(), labels)
                statistics = own if statistics is None else statistics + own
                if last:
                    _update_memory(trainer, statistics, float(values["memory_momentum"]))
            loss = loss * ranks().world  # the gradients of the ranks will be averaged, but theirs are parts of one sum
            # After the pixel pass and after the update: the final decoder's BatchNorm sees the memory rows last.
            if last and benchmark.loss.consistency > 0 and epoch >= benchmark.loss.consistency_from_epoch:
                term = consistency_loss(trainer.model, benchmark.loss.consistency)
                loss = loss + term
                terms["consistency"] = term / ranks().world
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach()
            if last:
                values |= _checked(totals, benchmark.id, iteration, epoch)
            scaler.scale(loss).backward()

    _average_memories(trainer)
    scaler.unscale_(optimizer)
    limit = benchmark.optimizer.clip_grad_norm
    parameters = [p for p in trainer.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if not scaler.is_enabled() and not torch.isfinite(norm):
        raise _not_finite(benchmark.id, f"the gradient's norm is {norm.item()}", iteration, epoch)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    scaler.step(optimizer)
    scaler.update()
    return values | {"grad_norm": norm}


def _update_memory(trainer: Trainer, statistics: MemoryStatistics, momentum: float) -> None:
    if trainer.benchmark.memory.sync == "statistics":
        sum_over_ranks(*statistics.parts())
    trainer.model.memory.blend(statistics, momentum)


def _average_memories(trainer: Trainer) -> None:
    """The authors' rule: every rank has blended by itself; the losses of this step saw the rank's own memory."""
    memory = trainer.benchmark.memory
    if memory is not None and memory.sync == "per_rank_mean" and ranks().world > 1:
        mean = trainer.model.memory.memory / ranks().world
        sum_over_ranks(mean)
        trainer.model.memory.memory = mean


def _checked(totals: dict[str, Tensor], benchmark: str, iteration: int, epoch: int) -> dict[str, Tensor]:
    """`loss` and `loss_<term>` over the global batch. Raises PipelineError, on every rank, when one is not finite."""
    terms = torch.stack(list(totals.values()))
    sum_over_ranks(terms)
    loss = terms.sum()
    if not torch.isfinite(loss):
        shown = dict(zip(totals, terms.tolist(), strict=True))
        raise _not_finite(benchmark, f"loss is {loss.item()} ({shown})", iteration, epoch)
    return {"loss": loss} | {f"loss_{name}": term for name, term in zip(totals, terms.unbind(), strict=True)}


def _not_finite(benchmark: str, what: str, iteration: int, epoch: int) -> PipelineError:
    return PipelineError(
        f"{benchmark}: {what} at iteration {iteration} (epoch {epoch}). "
        "Lower optimizer.lr, set optimizer.clip_grad_norm, or use runtime.precision: float32"
    )


def _gradients_stay_here(model: nn.Module, unless: bool) -> contextlib.AbstractContextManager[object]:
    """Exchange gradients with the other ranks in the backward pass of the last part only."""
    if isinstance(model, DistributedDataParallel) and not unless:
        return model.no_sync()
    return contextlib.nullcontext()
