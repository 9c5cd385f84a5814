"""The memory updates of one batch: two crops of 512x512 at stride 8, 512 channels, 150 classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Case, require_close
from benchmarks.networks import CLASSES, labels
from benchmarks.reference.update import dense_distribution_update, dense_update
from pipeline.models.distribution import DistributionMemory
from pipeline.models.memory_update import blend, class_statistics

_CHANNELS, _SIZE = 512, 512


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """Two lines: vectors, and the mean and deviation of MCIBI++."""
    return {"memory update": lambda: _case(device), "distribution update": lambda: _distribution_case(device)}


def _batch(device: torch.device) -> tuple[Tensor, Tensor, str]:
    """Representations, labels, and what they are in words."""
    torch.manual_seed(0)
    # As a network makes them: after an activation, and equal from pixel to pixel only on average.
    features = torch.randn(2, _CHANNELS, _SIZE // 8, _SIZE // 8).relu().to(device)
    target = labels(_SIZE, 2, CLASSES).to(device)
    present = len(target.unique()) - 1  # one value is the ignore index
    size = f"B=2, C={_CHANNELS}, {_SIZE // 8}x{_SIZE // 8} to {_SIZE}x{_SIZE}"
    return features, target, f"{size}, {present} of {CLASSES} classes present"


def _distribution_case(device: torch.device) -> Case:
    features, target, setting = _batch(device)
    module = DistributionMemory(CLASSES, _CHANNELS, fuse_context=False).to(device).train()
    before = module.memory.clone()

    def ours() -> Tensor:
        module.memory = before
        module.update(features, target, 0.1)
        return module.memory

    return Case(
        setting,
        ours,
        lambda: dense_distribution_update(before, features, target, 0.1),
        lambda ours, reference: require_close("memory", ours, reference, 1e-4),
        rounds=3,
    )


def _case(device: torch.device) -> Case:
    features, target, setting = _batch(device)
    memory = torch.rand(CLASSES, 1, _CHANNELS).to(device)
    return Case(
        setting,
        lambda: blend(memory, class_statistics(memory, features, target, "cosine"), 0.9),
        lambda: dense_update(memory, features, target, 0.9),
        lambda ours, reference: require_close("memory", ours, reference, 1e-4),
        rounds=3,
    )
