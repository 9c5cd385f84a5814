"""Adaptive average pooling in a form that an exported graph can hold for any image size."""

from __future__ import annotations

import torch
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


def with_matrix_pooling(model: nn.Module) -> nn.Module:
    """`model`, changed in place: every square adaptive pooling to more than one cell is a `MatrixPooling`."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int) and child.output_size > 1:
                setattr(module, name, MatrixPooling(child.output_size))
    return model
