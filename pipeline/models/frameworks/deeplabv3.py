"""DeepLabV3: atrous spatial pyramid pooling, parallel convolutions of growing reach (METHOD section 2, ASPP)."""

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
    """The branches; dilation 1 is a 1x1 convolution. They do not change with the output stride."""

    dilations: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 12, 24, 36)


class AtrousPyramid(nn.Module):
    """X (B, C_in, h, w) -> (B, C, h, w): CBA3 over the dilated branches in order and a global average."""

    def __init__(self, shape: HeadShape, dilations: tuple[int, ...]) -> None:
        super().__init__()
        c_in, channels, activation = shape.in_channels, shape.channels, shape.activation
        self.branches = nn.ModuleList(
            conv_bn_act(c_in, channels, 1 if dilation == 1 else 3, activation, dilation) for dilation in dilations
        )
        self.global_branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_act(c_in, channels, 1, activation))
        self.fusion = conv_bn_act((len(dilations) + 1) * channels, channels, 3, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C_in, h, w) to context (B, C, h, w)."""
        size = (features.shape[2], features.shape[3])
        everywhere = resize(self.global_branch(features), size)  # (B, C, h, w)
        return self.fusion(torch.cat([*(branch(features) for branch in self.branches), everywhere], dim=1))


def build_context(shape: HeadShape, options: Options) -> nn.Module:
    """Atrous pyramid over the encoder's last map."""
    return AtrousPyramid(shape, options.dilations)
