"""One optimiser step, in the order that the goldens fix (METHOD sections 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.schema import Benchmark
from pipeline.errors import PipelineError
from pipeline.models import Segmentor
from pipeline.runtime import autocast
from pipeline.training.losses import consistency_loss, pixel_losses
from pipeline.training.optimizer import set_lr
from pipeline.training.schedule import memory_momentum, poly_lr


@dataclass(frozen=True)
class Trainer:
    """What a step needs and changes: model, optimiser and (float16 only) the gradient scaler."""

    benchmark: Benchmark
    model: Segmentor
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str
    total_iterations: int


def training_step(
    trainer: Trainer, images: Tensor, labels: Tensor, iteration: int, epoch: int
) -> dict[str, Tensor | float]:
    """Forward, memory update, losses, backward, optimiser step.

    images: (B, 3, H, W) float32 normalised; labels: (B, H, W) int64, 255 = ignore; iteration counts from 0 over the
    whole run, epoch from 1. Returns detached scalars: lr, loss, loss_<term>, grad_norm and, with a memory,
    memory_momentum. Raises PipelineError when the loss is not finite; parameters are then still those before the step.
    """
    benchmark, model, optimizer, scaler = trainer.benchmark, trainer.model, trainer.optimizer, trainer.scaler
    lr = poly_lr(iteration, trainer.total_iterations, benchmark.optimizer, benchmark.schedule)
    set_lr(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    values: dict[str, Tensor | float] = {"lr": lr}

    with autocast(trainer.device, trainer.precision):
        output = model(images)
        terms = pixel_losses(output, labels, benchmark.loss)
        if model.memory is not None and benchmark.memory is not None:
            momentum = memory_momentum(lr, benchmark.memory, benchmark.optimizer)
            model.memory.update(output.representations.detach().float(), labels, momentum)
            values["memory_momentum"] = momentum
            # After the pixel pass and after the update: the final decoder's BatchNorm sees the memory rows last.
            if benchmark.loss.consistency > 0 and epoch >= benchmark.loss.consistency_from_epoch:
                terms["consistency"] = consistency_loss(model, benchmark.loss.consistency)
    loss = torch.stack(list(terms.values())).sum()
    if not torch.isfinite(loss):
        shown = {name: term.item() for name, term in terms.items()}
        raise PipelineError(
            f"{benchmark.id}: loss is {loss.item()} at iteration {iteration} (epoch {epoch}): {shown}. "
            "Lower optimizer.lr, set optimizer.clip_grad_norm, or use runtime.precision: float32"
        )

    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    limit = benchmark.optimizer.clip_grad_norm
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_([p for p in model.parameters() if p.grad is not None], limit, norm)
    scaler.step(optimizer)
    scaler.update()
    values |= {"loss": loss.detach(), "grad_norm": norm}
    values |= {f"loss_{name}": term.detach() for name, term in terms.items()}
    return values
