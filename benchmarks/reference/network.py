"""The same network, with attention that writes out the affinity of every pair of positions."""

from __future__ import annotations

import copy
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.models.attention import AttentionBlock

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def reference_network(model: ModuleT) -> ModuleT:
    """A copy with equal weights, in PyTorch's default memory layout, whose attention holds (B, hw, pq) maps."""
    twin = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for block in twin.modules():
        if isinstance(block, AttentionBlock):
            block.forward = MethodType(_attend, block)
    return twin


def _attend(block: AttentionBlock, queries: Tensor, keys: Tensor) -> Tensor:
    query = block.query_projection(queries).flatten(2).transpose(1, 2).contiguous()  # (B, hw, T)
    key = block.key_projection(keys).flatten(2)  # (B, T, pq)
    value = block.value_projection(keys).flatten(2).transpose(1, 2).contiguous()  # (B, pq, T)
    affinity = torch.matmul(query, key)  # (B, hw, pq)
    affinity = affinity * query.shape[-1] ** -0.5
    affinity = affinity.softmax(dim=-1)
    gathered = torch.matmul(affinity, value).transpose(1, 2).contiguous()  # (B, T, hw)
    return block.output_projection(gathered.unflatten(2, queries.shape[2:]))
