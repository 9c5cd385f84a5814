"""The few layers that every head is made of (docs/method.md, "Architecture")."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pipeline.config.schema import SegmentorConfig

Activation = Literal["relu", "leaky_relu"]


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    activation: Activation,
    dilation: int = 1,
    stride: int = 1,
    momentum: float = 0.1,
) -> nn.Sequential:
    """The CBA block: bias-free convolution, batch norm, activation. (B, in, h, w) -> (B, out, h/stride, w/stride)."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(out_channels, momentum=momentum),
        {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}[activation](inplace=True),  # slope 0.01: the LIP ResNet rows
    )


def decoder(
    in_channels: int,
    channels: int,
    num_classes: int,
    config: SegmentorConfig,
    kernel_size: int = 3,
    blocks: int = 1,
    upsample: int = 1,
) -> nn.Sequential:
    """`blocks` CBA blocks, each followed by nearest upsampling, then channel dropout and a 1x1 convolution to logits.

    (B, in, h, w) -> (B, K, f*h, f*w) with f = upsample ** blocks.
    """
    layers: list[nn.Module] = []  # flat: keys read `0` convolution, `1` norm, `4` classifier as in the published files
    for block in range(blocks):
        layers += conv_bn_act(in_channels if block == 0 else channels, channels, kernel_size, config.activation)
        if upsample > 1:
            layers.append(nn.Upsample(scale_factor=upsample, mode="nearest"))
    return nn.Sequential(*layers, nn.Dropout2d(config.dropout), nn.Conv2d(channels, num_classes, kernel_size=1))


def halving(channels: int, activation: Activation) -> nn.Sequential:
    """Stride-2 CBA block, (B, C, h, w) -> (B, C, h/2, w/2), between HRNet and the head."""
    # The authors run it once for each of four equal maps, which moves the statistics four times per iteration.
    return conv_bn_act(channels, channels, 3, activation, stride=2, momentum=1 - (1 - 0.1) ** 4)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise each position separately."""
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)
