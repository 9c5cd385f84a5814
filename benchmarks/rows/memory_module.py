"""The memory module alone, forward and backward: two attentions and two fusions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Case, all_close
from benchmarks.networks import CLASSES, ade_twins

_COUNT, _SIDE = 2, 64


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """One line: crops of 512x512 at stride 8."""
    return {"memory module": lambda: _case(device)}


def _case(device: torch.device) -> Case:
    theirs, model = ade_twins(device)
    their_memory, memory = theirs.memory_module.train(), model.memory.train().to(memory_format=torch.channels_last)
    inputs = [torch.randn(_COUNT, channels, _SIDE, _SIDE).to(device) for channels in (512, CLASSES, 512)]

    def run(read: Callable[..., Tensor]) -> dict[str, Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out = read(*leaves)
        out.square().mean().backward()
        return {"output": out.detach(), "gradient": leaves[0].grad, "gradient of coarse logits": leaves[1].grad}

    return Case(
        f"B={_COUNT}, C=512, {_SIDE}x{_SIDE}, K={CLASSES}, forward and backward",
        lambda: run(memory),
        lambda: run(lambda *arguments: their_memory(*arguments)[1]),
        all_close({"gradient": 1e-2, "gradient of coarse logits": 1e-2}, otherwise=1e-4),
        rounds=2,
    )
