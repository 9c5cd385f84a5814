"""PSPNet: pyramid pooling, the image's averages over coarse grids (METHOD section 2, PPM)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.schema import Positive, Section
from pipeline.models.frameworks import ContextInput, HeadShape
from pipeline.models.layers import conv_bn_act, resize

CONTEXT_INPUT: ContextInput = "features"


class Options(Section):
    """The pyramid: each bin b averages the map over a grid of b x b cells."""

    bins: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """X (B, C_in, h, w) -> (B, C, h, w): CBA3 of X beside its pooled, projected and resized versions."""

    def __init__(self, shape: HeadShape, bins: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size), *conv_bn_act(shape.in_channels, shape.channels, 1, shape.activation)
            )
            for size in bins
        )
        fused = shape.in_channels + len(bins) * shape.channels
        self.fusion = conv_bn_act(fused, shape.channels, 3, shape.activation)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C_in, h, w) to context (B, C, h, w)."""
        size = (features.shape[2], features.shape[3])
        pooled = [resize(branch(features), size) for branch in self.branches]  # (B, C, h, w) each
        return self.fusion(torch.cat([features, *pooled], dim=1))


def build_context(shape: HeadShape, options: Options) -> nn.Module:
    """Pyramid pooling over the encoder's last map."""
    return PyramidPooling(shape, options.bins)
