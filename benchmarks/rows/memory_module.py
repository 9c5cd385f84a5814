"""The memory module alone, forward and backward: two attentions and two fusions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Case, require_close
from benchmarks.networks import CLASSES, ade_twins


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """One line: crops of 512x512 at stride 8."""
    return {"memory module": lambda: _case(device, 2, 64)}


def _case(device: torch.device, count: int, side: int) -> Case:
    theirs, model = ade_twins(device)
    their_memory, memory = theirs.memory_module.train(), model.memory.train().to(memory_format=torch.channels_last)
    inputs = [torch.randn(count, channels, side, side).to(device) for channels in (512, CLASSES, 512)]

    def run(read: Callable[..., Tensor]) -> dict[str, Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out = read(*leaves)
        out.square().mean().backward()
        return {"output": out.detach(), "gradient": leaves[0].grad, "gradient of coarse logits": leaves[1].grad}

    return Case(
        f"B={count}, C=512, {side}x{side}, K={CLASSES}, forward and backward",
        lambda: run(memory),
        lambda: run(lambda *arguments: their_memory(*arguments)[1]),
        compare,
        rounds=2,
    )


def compare(ours: object, reference: object) -> dict[str, float]:
    """Every tensor of one dictionary against that of the other."""
    errors: dict[str, float] = {}
    for name, expected in reference.items():
        errors |= require_close(name, ours[name], expected, 1e-2 if "gradient" in name else 1e-4)
    return errors
