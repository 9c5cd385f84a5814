"""The network compiled to fewer and larger kernels."""

from __future__ import annotations

import torch
from torch import nn


def compiled(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """What to call in place of `model`, whose parameters and buffers it shares; `model` itself stays as it was.

    Compiled at the first call, in one graph (RuntimeError where that is impossible), for inputs of one size: training
    crops never differ. Buffers are inputs of the graph, so a memory that was replaced between two calls is read anew.
    backend: of `torch.compile`; `inductor` needs a C++ compiler, and draws other dropout masks than the eager network.
    """
    return torch.compile(model, fullgraph=True, dynamic=False, backend=backend)
