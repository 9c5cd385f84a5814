"""One optimiser step, in the authors' order: forward, memory update, losses, backward (docs/method.md, "Losses")."""

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
from pipeline.training.optimizer import memory_momentum, poly_lr

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
    class_weights: Tensor | None = None  # (K,) of the pixels of each class in the losses; None: all weigh 1


def compiled(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """`model` compiled to fewer and larger kernels, for `Trainer.parallel`; parameters and buffers are shared.

    Compiled at the first call, in one graph (RuntimeError where that is impossible), for inputs of one size: training
    crops never differ. Buffers are inputs of the graph, so each call reads the memory's current tensor. backend: of
    `torch.compile`; `inductor` needs a C++ compiler, and draws other dropout masks than the uncompiled network.
    """
    return torch.compile(model, fullgraph=True, dynamic=False, backend=backend)


def training_step(trainer: Trainer, parts: Sequence[Part], iteration: int, epoch: int) -> dict[str, Tensor | float]:
    """Forward, memory update, losses, backward, optimiser step, over this rank's `parts` of the global batch.

    Losses are averaged over the valid pixels of the global batch and the memory takes its statistics from all of it, so
    neither depends on how many ranks and parts there are. iteration counts from 0 over the whole run, epoch from 1.
    Returns detached scalars: lr, loss, loss_<term>, grad_norm and, with a memory, memory_momentum. Raises PipelineError
    when the loss or (unless float16's scaler deals with it) the gradient is not finite; parameters are then still those
    before the step, while the memory and the running statistics of batch norm have seen the batch. That question is the
    only one for whose answer the host waits.
    """
    benchmark, optimizer, scaler = trainer.benchmark, trainer.optimizer, trainer.scaler
    lr = poly_lr(iteration, trainer.total_iterations, benchmark.optimizer, benchmark.schedule)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
    optimizer.zero_grad(set_to_none=True)
    values: dict[str, Tensor | float] = {"lr": lr}
    momentum = None
    if trainer.model.memory is not None and trainer.model.memory.learns:
        momentum = values["memory_momentum"] = memory_momentum(lr, benchmark.memory, benchmark.optimizer)

    totals = _backward(trainer, parts, momentum, epoch)
    losses = torch.stack(list(totals.values()))
    sum_over_ranks(losses)
    scaler.unscale_(optimizer)
    parameters = [p for p in trainer.model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if not torch.isfinite(losses.sum() if scaler.is_enabled() else losses.sum() + norm):
        terms = ", ".join(f"{name} {loss}" for name, loss in zip(totals, losses.tolist(), strict=True))
        raise PipelineError(
            f"{benchmark.id}: loss is {losses.sum().item()} ({terms}) and the gradient's norm {norm.item()} "
            f"at iteration {iteration} (epoch {epoch}). Lower optimizer.lr, set optimizer.clip_grad_norm, or use "
            "runtime.precision: float32"
        )
    if benchmark.optimizer.clip_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, benchmark.optimizer.clip_grad_norm, norm)
    scaler.step(optimizer)
    scaler.update()
    values |= {f"loss_{name}": loss for name, loss in zip(totals, losses.unbind(), strict=True)}
    return values | {"loss": losses.sum(), "grad_norm": norm}


def _backward(trainer: Trainer, parts: Sequence[Part], momentum: float | None, epoch: int) -> dict[str, Tensor]:
    """Gradients of all parts, and the update of the memory unless `momentum` is None.

    Returns this rank's share of each weighted loss term, summed over its parts and detached.
    """
    weights, model = trainer.benchmark.loss, trainer.model
    valid = torch.stack([valid_pixels(labels, trainer.class_weights) for _, labels in parts]).sum()
    sum_over_ranks(valid)
    totals: dict[str, Tensor] = {}
    statistics: list[MemoryStatistics] = []
    for index, (images, labels) in enumerate(parts):
        last = index == len(parts) - 1
        exchange: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if not last and isinstance(trainer.parallel, DistributedDataParallel):
            exchange = trainer.parallel.no_sync()  # gradients are exchanged with the other ranks once, at the end
        with autocast(trainer.device, trainer.precision), exchange:
            output = trainer.parallel(images)
            terms = pixel_losses(output, labels, weights, valid, trainer.class_weights)
            # The gradients of the ranks will be averaged, but theirs are parts of one sum.
            loss = torch.stack(list(terms.values())).sum() * ranks().world
            if momentum is not None:
                statistics.append(model.memory.statistics(output.representations, labels))
            if momentum is not None and last:
                model.memory.update_from(statistics, momentum)
            # After the pixel pass and after the update: the final decoder's batch norm sees the memory's vectors last.
            if last and weights.consistency > 0 and epoch >= weights.consistency_from_epoch:
                term = consistency_loss(model, weights.consistency)
                loss = loss + term
                terms["consistency"] = term / ranks().world
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach()
            trainer.scaler.scale(loss).backward()
    if momentum is not None:
        model.memory.average_over_ranks()
    return totals
