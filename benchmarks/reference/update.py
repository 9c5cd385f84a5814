"""The memory updates on features resized to the crop, one class after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.datasets.spec import IGNORE_INDEX


@torch.no_grad()
def dense_update(
    memory: Tensor, representations: Tensor, labels: Tensor, momentum: float, strategy: str = "cosine"
) -> Tensor:
    """Memory (K, 1, C) after representations (B, C, h, w) with labels (B, H, W), as a new tensor."""
    pixels = F.interpolate(representations, size=labels.shape[1:], mode="bilinear", align_corners=False)
    pixels = pixels.permute(0, 2, 3, 1).contiguous().view(-1, representations.shape[1])  # (B*H*W, C)
    flat = labels.reshape(-1)
    result = memory.clone()
    for label in flat.unique().tolist():
        if label == IGNORE_INDEX:
            continue
        own, stored = pixels[flat == label], memory[label, 0]  # (n, C) and (C,)
        if bool((stored == 0).all()):
            result[label, 0] = own.mean(dim=0)
            continue
        if strategy == "mean":
            estimate = own.mean(dim=0)
        else:
            weight = 1 - F.cosine_similarity(own, stored[None].expand_as(own), dim=1, eps=1e-8)  # (n,)
            estimate = (own * (weight / weight.sum())[:, None]).sum(dim=0)
        result[label, 0] = (1 - momentum) * stored + momentum * estimate
    return result


@torch.no_grad()
def dense_distribution_update(memory: Tensor, representations: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """Mean and deviation (K, 2) of MCIBI++ after representations (B, C, h, w), labels (B, H, W); a new tensor."""
    pixels = F.interpolate(representations, size=labels.shape[1:], mode="bilinear", align_corners=False)
    pixels = pixels.permute(0, 2, 3, 1).contiguous().view(-1, representations.shape[1])  # (B*H*W, C)
    flat = labels.reshape(-1)
    result = memory.clone()
    for label in flat.unique().tolist():
        if label != IGNORE_INDEX:
            mean = pixels[flat == label].mean(dim=0)  # (C,)
            result[label] = (1 - momentum) * memory[label] + momentum * torch.stack([mean.mean(), mean.std()])
    return result
