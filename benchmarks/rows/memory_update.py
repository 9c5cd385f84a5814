"""The memory update of one batch: two crops of 512x512 at stride 8, 512 channels, 150 classes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.measure import Case, require_close
from benchmarks.networks import CLASSES, labels
from benchmarks.reference.update import dense_update
from pipeline.models.memory_update import blend, class_statistics

_CHANNELS, _SIZE = 512, 512


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """One line."""
    return {"memory update": lambda: _case(device)}


def _case(device: torch.device) -> Case:
    torch.manual_seed(0)
    # As a network makes them: after an activation, and equal from pixel to pixel only on average.
    features = torch.randn(2, _CHANNELS, _SIZE // 8, _SIZE // 8).relu().to(device)
    memory = torch.rand(CLASSES, 1, _CHANNELS).to(device)
    target = labels(_SIZE, 2, CLASSES).to(device)
    present = len(target.unique()) - 1  # one value is the ignore index
    return Case(
        f"B=2, C={_CHANNELS}, {_SIZE // 8}x{_SIZE // 8} to {_SIZE}x{_SIZE}, {present} of {CLASSES} classes present",
        lambda: blend(memory, class_statistics(memory, features, target, "cosine"), 0.9),
        lambda: dense_update(memory, features, target, 0.9),
        lambda ours, reference: require_close("memory", ours, reference, 1e-4),
        rounds=3,
    )
