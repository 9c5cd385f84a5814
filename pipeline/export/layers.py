"""Layers in a form that an exported graph can hold for any image size: the same function in other operators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


class MatrixPooling(nn.Module):
    """(B, C, h, w) -> (B, C, bins, bins), what `nn.AdaptiveAvgPool2d(bins)` computes, as two matrix products.

    ONNX has no operator whose windows depend on the size of the image. Cell i of b covers the positions from
    floor(i h / b) to ceil((i + 1) h / b), so neighbours may share one.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, maps: Tensor) -> Tensor:
        """Average rows, then columns."""
        rows, columns = (_averages(length, self.bins, maps) for length in maps.shape[2:])
        return rows @ maps @ columns.transpose(0, 1)


def _averages(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row i averages the positions of cell i."""
    cells = torch.arange(bins, device=like.device)[:, None]
    positions = torch.arange(length, device=like.device)[None]
    start = torch.div(cells * length, bins, rounding_mode="floor")
    end = torch.div((cells + 1) * length + bins - 1, bins, rounding_mode="floor")
    inside = ((positions >= start) & (positions < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


class SamePadding(nn.Module):
    """timm's `Conv2dSame`: pads by as much as gives ceil(side / stride) places, counted in integers.

    timm divides and rounds up, for which torch.export has no serial form.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        conv, padding = self.conv, []
        for axis in (1, 0):  # the width first, as `pad` wants it
            side, stride = maps.shape[2 + axis], conv.stride[axis]
            total = ((side + stride - 1) // stride - 1) * stride + _reach(conv, axis) - side
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(maps, padding), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _reach(conv: nn.Conv2d, axis: int) -> int:
    """Pixels that a kernel spans."""
    return (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1


def exportable(model: nn.Module) -> nn.Module:
    """`model`, changed in place: square adaptive pooling to several cells and same padding take the forms above."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int) and child.output_size > 1:
                setattr(module, name, MatrixPooling(child.output_size))
            elif isinstance(child, Conv2dSame) and all(_reach(child, axis) >= child.stride[axis] for axis in (0, 1)):
                setattr(module, name, SamePadding(child))  # a kernel within its stride may need no padding at all
    return model
