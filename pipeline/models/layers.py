"""The few layers that every head is made of (docs/method.md, "Architecture")."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "leaky_relu"]


def activation_layer(name: Activation) -> nn.Module:
    """ReLU, or LeakyReLU with slope 0.01 (the LIP ResNet rows)."""
    return {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}[name](inplace=True)


def conv_bn_act(
    in_channels: int, out_channels: int, kernel_size: int, activation: Activation, dilation: int = 1
) -> nn.Sequential:
    """The CBA block: bias-free convolution, batch norm, activation. (B, in, h, w) -> (B, out, h, w)."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        activation_layer(activation),
    )


def classifier(channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Channel dropout and the 1x1 convolution to logits. (B, channels, h, w) -> (B, K, h, w)."""
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, kernel_size=1))


def decoder(
    in_channels: int, channels: int, num_classes: int, kernel_size: int, activation: Activation, dropout: float
) -> nn.Sequential:
    """A CBA block, then the classifier. (B, in, h, w) -> (B, K, h, w)."""
    # Flat, so that keys read `0` convolution, `1` norm, `4` classifier as in the published files.
    block = conv_bn_act(in_channels, channels, kernel_size, activation)
    return nn.Sequential(*block, *classifier(channels, num_classes, dropout))


def auxiliary_decoder(
    in_channels: int,
    channels: int,
    num_classes: int,
    blocks: int,
    upsample: int,
    activation: Activation,
    dropout: float,
) -> nn.Sequential:
    """`blocks` CBA3 blocks, each followed by nearest upsampling by `upsample`, then the classifier.

    (B, in, h, w) -> (B, K, f*h, f*w) with f = upsample ** blocks.
    """
    layers: list[nn.Module] = []
    for block in range(blocks):
        layers += conv_bn_act(in_channels if block == 0 else channels, channels, 3, activation)
        if upsample > 1:
            layers.append(nn.Upsample(scale_factor=upsample, mode="nearest"))
    return nn.Sequential(*layers, *classifier(channels, num_classes, dropout))


def halving(channels: int, activation: Activation) -> nn.Sequential:
    """Stride-2 CBA block, (B, C, h, w) -> (B, C, h/2, w/2), between HRNet and the head."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, bias=False),
        # The authors run it once for each of four equal maps, which moves the statistics four times per iteration.
        nn.BatchNorm2d(channels, momentum=1 - (1 - 0.1) ** 4),
        activation_layer(activation),
    )


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """Every position by itself."""
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)
