"""Attention between the pixels of one map and the positions of another (docs/method.md, "Architecture")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import Activation, conv_bn_act


class AttentionBlock(nn.Module):
    """Single-head attention whose four projections are CBA blocks; no residual, no positional encoding.

    `channels` is C of both inputs and of the output, `attention_channels` is the width T of the head.
    """

    def __init__(self, channels: int, attention_channels: int, activation: Activation) -> None:
        super().__init__()

        def two_blocks() -> nn.Sequential:
            return nn.Sequential(
                conv_bn_act(channels, attention_channels, 1, activation),
                conv_bn_act(attention_channels, attention_channels, 1, activation),
            )

        self.query_projection = two_blocks()
        self.key_projection = two_blocks()
        self.value_projection = conv_bn_act(channels, attention_channels, 1, activation)
        self.output_projection = conv_bn_act(attention_channels, channels, 1, activation)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Queries (B, C, h, w) gather from keys (B, C, p, q), any p and q; returns (B, C, h, w)."""
        q = _positions_last(self.query_projection(queries))  # (B, 1, hw, T)
        k = _positions_last(self.key_projection(keys))  # (B, 1, pq, T)
        v = _positions_last(self.value_projection(keys))  # (B, 1, pq, T)
        # The default scale T^-0.5 is the published one; the fused kernel never holds the (hw, pq) affinities.
        gathered = F.scaled_dot_product_attention(q, k, v)  # (B, 1, hw, T)
        gathered = gathered.squeeze(1).transpose(1, 2).unflatten(2, queries.shape[2:])  # (B, T, h, w)
        return self.output_projection(gathered.contiguous())  # (B, C, h, w)


def _positions_last(maps: Tensor) -> Tensor:
    """(B, T, h, w) -> (B, 1, h*w, T): one head, positions as the sequence."""
    # Fused kernels want each position's vector in one piece; with strided ones PyTorch builds the (hw, pq) matrix.
    return maps.flatten(2).transpose(1, 2).contiguous().unsqueeze(1)
