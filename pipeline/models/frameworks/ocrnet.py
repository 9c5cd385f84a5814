"""OCRNet: object-contextual representations, the pixels consult the objects that coarse logits outline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config.schema import Section
from pipeline.models.attention import AttentionBlock
from pipeline.models.frameworks import ContextInput, HeadShape
from pipeline.models.layers import conv_bn_act

CONTEXT_INPUT: ContextInput = "objects"


class Options(Section):
    """OCRNet has no options."""


class ObjectContext(nn.Module):
    """R (B, C, h, w) and coarse logits (B, K, h, w) -> (B, C, h, w): CBA3 of [gathered object features, R]."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.attention = AttentionBlock(shape.channels, shape.attention_channels, shape.activation)
        self.fusion = conv_bn_act(2 * shape.channels, shape.channels, 3, shape.activation)

    def forward(self, representations: Tensor, coarse_logits: Tensor) -> Tensor:
        """Context (B, C, h, w) of representations (B, C, h, w) under coarse logits (B, K, h, w)."""
        objects = object_features(representations, coarse_logits)  # (B, C, K, 1)
        gathered = self.attention(representations, objects)  # (B, C, h, w)
        return self.fusion(torch.cat([gathered, representations], dim=1))


def object_features(representations: Tensor, coarse_logits: Tensor) -> Tensor:
    """One vector per class, (B, C, K, 1): the pixels averaged with a softmax over *positions* of its logits."""
    weights = coarse_logits.flatten(2).softmax(dim=2)  # (B, K, hw)
    objects = weights @ representations.flatten(2).transpose(1, 2)  # (B, K, C)
    return objects.transpose(1, 2).unsqueeze(3)


def build_context(shape: HeadShape, options: Options) -> nn.Module:
    """Object context over the pixel representations."""
    return ObjectContext(shape)
