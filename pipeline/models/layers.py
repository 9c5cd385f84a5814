"""The few layers every head is made of (METHOD section 1)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
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


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear with align_corners False, the only resize of the method."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
