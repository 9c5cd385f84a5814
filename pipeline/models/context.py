"""Context within the image: what a framework adds to each pixel from the rest of the image.

The paper puts its memory, the context beyond the image, on top of these modules. To add one, write the module, built
from (HeadShape, its options), and enter it in `FRAMEWORKS` under the name that `segmentor.framework` has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.parse import parse, suggestion
from pipeline.config.schema import Positive, Section, SegmentorConfig
from pipeline.errors import PipelineError
from pipeline.models.attention import AttentionBlock
from pipeline.models.bilinear import resize
from pipeline.models.layers import Activation, conv_bn_act

# What a context module is called with:
# "features": the encoder's last map X (B, C_in, h, w).
# "pyramid": all maps of the encoder, finest first, the image itself at [0].
# "objects": pixel representations R (B, C, h, w) and the coarse logits (B, K, h, w) that mark the objects.
ContextInput = Literal["none", "features", "pyramid", "objects"]


@dataclass(frozen=True)
class HeadShape:
    """Widths that a context module is built from."""

    in_channels: int  # C_in, of the encoder's last map
    channels: int  # C, of the head
    attention_channels: int  # T
    activation: Activation
    pyramid_channels: tuple[int, ...]  # of all maps of the encoder, the image at [0]


class PoolingOptions(Section):
    """`segmentor.options` of PSPNet: each bin b averages the map over a grid of b x b cells."""

    bins: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """PSPNet: X (B, C_in, h, w) -> (B, C, h, w), CBA3 of X beside its pooled, projected and resized versions."""

    def __init__(self, shape: HeadShape, options: PoolingOptions) -> None:
        super().__init__()
        c_in, channels, activation = shape.in_channels, shape.channels, shape.activation
        self.branches = nn.ModuleList(_pooled_branch(c_in, channels, size, activation) for size in options.bins)
        self.fusion = conv_bn_act(c_in + len(options.bins) * channels, channels, 3, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C_in, h, w) to context (B, C, h, w)."""
        pooled = [resize(branch(features), features.shape[2:]) for branch in self.branches]  # (B, C, h, w) each
        return self.fusion(torch.cat([features, *pooled], dim=1))


class AtrousOptions(Section):
    """`segmentor.options` of DeepLabV3: one branch per dilation, whatever the output stride; 1 is a 1x1 convolution."""

    dilations: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 12, 24, 36)


class AtrousPyramid(nn.Module):
    """DeepLabV3: X (B, C_in, h, w) -> (B, C, h, w), CBA3 of the dilated branches in order and a global average."""

    def __init__(self, shape: HeadShape, options: AtrousOptions) -> None:
        super().__init__()
        c_in, channels, activation = shape.in_channels, shape.channels, shape.activation
        self.branches = nn.ModuleList(
            conv_bn_act(c_in, channels, 1 if dilation == 1 else 3, activation, dilation)
            for dilation in options.dilations
        )
        self.global_branch = _pooled_branch(c_in, channels, 1, activation)
        self.fusion = conv_bn_act((len(options.dilations) + 1) * channels, channels, 3, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C_in, h, w) to context (B, C, h, w)."""
        everywhere = resize(self.global_branch(features), features.shape[2:])  # (B, C, h, w)
        return self.fusion(torch.cat([*(branch(features) for branch in self.branches), everywhere], dim=1))


class ObjectContext(nn.Module):
    """OCRNet: pixels consult the objects that coarse logits outline; CBA3 of [gathered object features, R]."""

    def __init__(self, shape: HeadShape, options: Section) -> None:
        super().__init__()
        self.attention = AttentionBlock(shape.channels, shape.attention_channels, shape.activation)
        self.fusion = conv_bn_act(2 * shape.channels, shape.channels, 3, shape.activation)

    def forward(self, representations: Tensor, coarse_logits: Tensor) -> Tensor:
        """Context (B, C, h, w) of representations R (B, C, h, w) under coarse logits (B, K, h, w)."""
        gathered = self.attention(representations, object_features(representations, coarse_logits))  # (B, C, h, w)
        return self.fusion(torch.cat([gathered, representations], dim=1))


def object_features(representations: Tensor, coarse_logits: Tensor) -> Tensor:
    """One vector per class, (B, C, K, 1): the pixels averaged with a softmax over *positions* of its logits."""
    weights = coarse_logits.flatten(2).softmax(dim=2)  # (B, K, hw)
    objects = weights @ representations.flatten(2).transpose(1, 2)  # (B, K, C)
    return objects.transpose(1, 2).unsqueeze(3)


class FeaturePyramid(nn.Module):
    """UPerNet: pyramid pooling on the last of four maps, carried up to the finest one, (B, C, h_0, w_0)."""

    LEVELS = 4

    def __init__(self, shape: HeadShape, options: Section) -> None:
        super().__init__()
        channels, activation = shape.channels, shape.activation
        finer = shape.pyramid_channels[-self.LEVELS : -1]
        self.pooling = PyramidPooling(shape, PoolingOptions())
        self.laterals = nn.ModuleList(conv_bn_act(width, channels, 1, activation) for width in finer)
        self.smoothing = nn.ModuleList(conv_bn_act(channels, channels, 3, activation) for _ in finer)
        self.fusion = conv_bn_act((len(finer) + 1) * channels, channels, 3, activation)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Encoder maps (B, C_i, h_i, w_i), finest first, to context (B, C, h_0, w_0)."""
        levels = [lateral(m) for lateral, m in zip(self.laterals, maps[-self.LEVELS : -1], strict=True)]
        levels.append(self.pooling(maps[-1]))  # (B, C, h_i, w_i) each
        return self.fusion(_carried_up(levels, self.smoothing))


class MemoryPyramid(nn.Module):
    """MCIBI++'s "UperNet": what the memory returns, carried up to the finest of four maps; no pooling, no fusion.

    (B, C_i, h_i, w_i) maps of the encoder, finest first, and the memory's (B, D, h, w) to (B, 3E + D, h_0, w_0).
    """

    LEVELS = 4

    def __init__(
        self, pyramid_channels: Sequence[int], memory_channels: int, channels: int, activation: Activation
    ) -> None:
        super().__init__()
        finer = pyramid_channels[-self.LEVELS : -1]
        self.laterals = nn.ModuleList(conv_bn_act(width, memory_channels, 1, activation) for width in finer)
        self.smoothing = nn.ModuleList(conv_bn_act(memory_channels, channels, 3, activation) for _ in finer)
        self.out_channels = len(finer) * channels + memory_channels

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Three maps of the encoder and the memory's."""
        levels = [lateral(m) for lateral, m in zip(self.laterals, maps[:-1], strict=True)]
        return _carried_up([*levels, maps[-1]], self.smoothing)


def _carried_up(levels: list[Tensor], smoothing: nn.ModuleList) -> Tensor:
    """Levels (B, C, h_i, w_i), finest first: each added to the finer one, smoothed but for the last, and concatenated.

    Returns (B, sum of their channels, h_0, w_0).
    """
    for i in range(len(levels) - 1, 0, -1):
        levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
    smooth = [conv(level) for conv, level in zip(smoothing, levels[:-1], strict=True)]
    return torch.cat([resize(level, levels[0].shape[2:]) for level in (*smooth, levels[-1])], dim=1)


def _pooled_branch(in_channels: int, channels: int, bins: int, activation: Activation) -> nn.Sequential:
    """(B, in_channels, h, w) -> (B, channels, bins, bins): averages over a grid of cells, projected."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(bins), *conv_bn_act(in_channels, channels, 1, activation))


@dataclass(frozen=True)
class Framework:
    """How a framework gathers context within the image."""

    context_input: ContextInput
    context: Callable[[HeadShape, Any], nn.Module] | None  # None: the memory, when there is one, is all the context
    options: type[Section] = Section


FRAMEWORKS = {
    "deeplabv3": Framework("features", AtrousPyramid, AtrousOptions),
    "fcn": Framework("none", None),
    "ocrnet": Framework("objects", ObjectContext),
    "pspnet": Framework("features", PyramidPooling, PoolingOptions),
    "upernet": Framework("pyramid", FeaturePyramid),
}


def framework_options(config: SegmentorConfig) -> Section:
    """`segmentor.options`, typed. Raises PipelineError for an unknown framework, or options that it does not have."""
    name = config.framework
    if name not in FRAMEWORKS:
        raise PipelineError(f"segmentor.framework: {name!r} is unknown; {suggestion(name, FRAMEWORKS)}")
    return parse(FRAMEWORKS[name].options, config.options, "segmentor.options")
