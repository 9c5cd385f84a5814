"""The memory updates of one batch: two crops of 512x512 at stride 8, 512 channels, 150 classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Case, require_close
from benchmarks.networks import CLASSES, ade_benchmark, ade_twins, labels
from benchmarks.toolbox import update_configuration
from pipeline.training.optimizer import memory_momentum

_CHANNELS, _SIZE = 512, 512


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """Two lines: vectors, and the mean and deviation of MCIBI++."""
    return {
        "memory update": lambda: _case(device, "ade20k-resnet50os8"),
        "distribution update": lambda: _case(device, "pp-ade20k-resnet50os8-plain"),
    }


def _case(device: torch.device, row: str) -> Case:
    torch.manual_seed(0)
    # As a network makes them: after an activation, and equal from pixel to pixel only on average.
    features = torch.randn(2, _CHANNELS, _SIZE // 8, _SIZE // 8).relu().to(device)
    target = labels(_SIZE, 2, CLASSES).to(device)
    theirs, model = ade_twins(device, row)
    benchmark, their_memory, memory = ade_benchmark(row), theirs.memory_module, model.memory.train()
    before, lr = memory.memory.clone(), benchmark.optimizer.lr
    momentum = memory_momentum(lr, benchmark.memory, benchmark.optimizer)
    configuration = update_configuration(benchmark.memory, lr)

    def ours() -> Tensor:
        memory.memory = before
        memory.update(features, target, momentum)
        return memory.memory

    @torch.no_grad()
    def reference() -> Tensor:
        their_memory.memory.copy_(before)
        resized = F.interpolate(features, size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
        their_memory.update(resized, target, learning_rate=lr, **configuration)
        return their_memory.memory.detach()

    present = len(target.unique()) - 1  # one value is the ignore index
    size = f"B=2, C={_CHANNELS}, {_SIZE // 8}x{_SIZE // 8} to {_SIZE}x{_SIZE}"
    return Case(
        f"{size}, {present} of {CLASSES} classes present",
        ours,
        reference,
        lambda ours, reference: require_close("memory", ours, reference, 1e-4),
        rounds=3,
    )
