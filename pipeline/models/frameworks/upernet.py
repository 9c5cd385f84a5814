"""UPerNet: pyramid pooling on the encoder's last map, carried up a feature pyramid over the finer ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config.schema import Section
from pipeline.models.frameworks import ContextInput, HeadShape
from pipeline.models.frameworks.pspnet import PyramidPooling
from pipeline.models.layers import conv_bn_act, resize

CONTEXT_INPUT: ContextInput = "pyramid"

_BINS = (1, 2, 3, 6)
_LEVELS = 4  # maps of the encoder that take part


class Options(Section):
    """UPerNet has no options."""


class FeaturePyramid(nn.Module):
    """Four maps, finest first, (B, C_i, h_i, w_i) -> (B, C, h_0, w_0) at the finest one's size."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        channels, activation = shape.channels, shape.activation
        finer = shape.pyramid_channels[-_LEVELS:-1]
        self.pooling = PyramidPooling(shape, _BINS)
        self.laterals = nn.ModuleList(conv_bn_act(width, channels, 1, activation) for width in finer)
        self.smoothing = nn.ModuleList(conv_bn_act(channels, channels, 3, activation) for _ in finer)
        self.fusion = conv_bn_act((len(finer) + 1) * channels, channels, 3, activation)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Encoder maps, finest first, to context (B, C, h_0, w_0)."""
        levels = [lateral(m) for lateral, m in zip(self.laterals, maps[-_LEVELS:-1], strict=True)]
        levels.append(self.pooling(maps[-1]))  # (B, C, h_i, w_i) each
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], _size(levels[i - 1]))
        smooth = [conv(level) for conv, level in zip(self.smoothing, levels[:-1], strict=True)]
        return self.fusion(torch.cat([resize(level, _size(levels[0])) for level in (*smooth, levels[-1])], dim=1))


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]


def build_context(shape: HeadShape, options: Options) -> nn.Module:
    """Feature pyramid over the encoder's four last maps."""
    return FeaturePyramid(shape)
