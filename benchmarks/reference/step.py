"""One training step: every head's logits resized to the crop, all held together, and the dense memory update."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.reference.update import dense_update
from pipeline.config.schema import Benchmark
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor
from pipeline.training.losses import consistency_loss
from pipeline.training.optimizer import memory_momentum


def reference_step(
    model: Segmentor, optimizer: torch.optim.Optimizer, benchmark: Benchmark, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Forward, update, losses, backward, optimiser step at the first learning rate; returns the loss."""
    optimizer.zero_grad()
    output = model(images)
    heads = [(output.logits, benchmark.loss.final), (output.coarse, benchmark.loss.coarse)]
    heads += [(logits, benchmark.loss.auxiliary) for logits in output.auxiliary]
    resized = [
        (F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False), weight)
        for logits, weight in heads
    ]  # (B, K, H, W) each
    memory = model.memory
    momentum = memory_momentum(benchmark.optimizer.lr, benchmark.memory, benchmark.optimizer)
    memory.memory = dense_update(memory.memory, output.representations.detach(), labels, momentum)
    losses = [weight * F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX) for logits, weight in resized]
    losses.append(consistency_loss(model, benchmark.loss.consistency))
    loss = torch.stack(losses).sum()
    loss.backward()
    optimizer.step()
    return {"loss": loss.item()}
