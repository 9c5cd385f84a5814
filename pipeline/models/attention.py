"""Attention between the pixels of one map and the positions of another (docs/method.md, "Architecture")."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import Activation, conv_bn_act

_WEIGHTS = 2**24  # attention weights that `entropy` holds at once: 64 MiB in float32


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

    def entropy(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Entropy of each pixel's attention over that of uniform attention, arguments as for `forward`: (B, h, w).

        1: every position counts alike, and the output is the same everywhere. 0: a single position counts.
        """
        q = _positions_last(self.query_projection(queries)).squeeze(1)  # (B, hw, T)
        k = _positions_last(self.key_projection(keys)).squeeze(1)  # (B, pq, T)
        rows = max(1, _WEIGHTS // (k.shape[0] * k.shape[1]))
        parts = []
        for some in q.split(rows, dim=1):
            logs = (some @ k.transpose(1, 2) * k.shape[2] ** -0.5).log_softmax(dim=2)  # (B, rows, pq)
            parts.append((-logs.exp() * logs).sum(dim=2).clamp(min=0))
        uniform = math.log(k.shape[1]) or 1.0  # a single position has no entropy
        return (torch.cat(parts, dim=1) / uniform).unflatten(1, queries.shape[2:])


def _positions_last(maps: Tensor) -> Tensor:
    """(B, T, h, w) -> (B, 1, h*w, T): one head, positions as the sequence."""
    # Fused kernels want each position's vector in one piece; with strided ones PyTorch builds the (hw, pq) matrix.
    return maps.flatten(2).transpose(1, 2).contiguous().unsqueeze(1)
