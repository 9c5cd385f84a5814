"""Convolutions on the CPU with weights in the blocked layout that oneDNN computes in.

PyTorch keeps weights in plain layout and has them reordered at every call: for a small image of few pixels and a layer
of many channels, that takes as long as the convolution. A network that is only evaluated needs it once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.evaluation.folding import folded


def optimised(model: nn.Module, precision: str) -> nn.Module:
    """A copy of `model` for evaluation: folded (see there) and, in float32 on a CPU with oneDNN, packed."""
    twin = folded(model)
    on_cpu = next(twin.parameters()).device.type == "cpu"
    if on_cpu and precision == "float32" and torch.backends.mkldnn.is_available():
        _pack(twin)
    return twin


@torch.no_grad()
def _pack(model: nn.Module) -> None:
    """Replace every plain convolution. Exact type: a subclass may do more than its name says."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and child.padding_mode == "zeros" and not isinstance(child.padding, str):
                setattr(parent, name, _PackedConvolution(child))


class _PackedConvolution(nn.Module):
    """The same function as an `nn.Conv2d`, (B, C, H, W) float32 to (B, C', H', W'), without gradient."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.geometry = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.detach(), *self.geometry, None)
        self.bias = convolution.bias

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve; no activation is fused."""
        return torch.ops.mkldnn._convolution_pointwise(maps, self.weight, self.bias, *self.geometry, "none", [], "")
