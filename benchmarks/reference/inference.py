"""Evaluation one view after the other, each at full size, brought to the host and kept until the average is taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import ProtocolConfig


@torch.no_grad()
def reference_predict(
    model: nn.Module,
    image: Tensor,
    protocol: ProtocolConfig,
    size: tuple[int, int],
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """Label map (H, W) int64, on the host, of one image (1, 3, h, w)."""
    views = []
    for scale in protocol.scales:
        scaled = image
        if scale != 1:
            scaled = F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
        for flipped in (False, True) if protocol.flip else (False,):
            maps = _forward(model, scaled.flip(-1) if flipped else scaled, protocol)
            if flipped:
                for a, b in flip_pairs:
                    maps[:, [a, b]] = maps[:, [b, a]]
                maps = maps.flip(-1)
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)  # (1, K, H, W)
            views.append(maps.cpu())
    average = sum(views) / len(views)
    return average[0].argmax(dim=0)


def _forward(model: nn.Module, image: Tensor, protocol: ProtocolConfig) -> Tensor:
    probabilities = protocol.average == "probabilities"
    if protocol.crop is None or protocol.stride is None:
        maps = model(image).logits
        return maps.softmax(dim=1) if probabilities else maps
    height, width = image.shape[-2:]
    total, count = None, image.new_zeros(1, 1, height, width)
    for bottom in _ends(height, protocol.crop[0], protocol.stride[0]):
        for right in _ends(width, protocol.crop[1], protocol.stride[1]):
            rows = slice(max(bottom - protocol.crop[0], 0), bottom)
            columns = slice(max(right - protocol.crop[1], 0), right)
            window = image[..., rows, columns]
            maps = F.interpolate(model(window).logits, size=window.shape[2:], mode="bilinear", align_corners=False)
            total = maps.new_zeros(1, maps.shape[1], height, width) if total is None else total
            total[..., rows, columns] += maps.softmax(dim=1) if probabilities else maps
            count[..., rows, columns] += 1
    return total / count


def _ends(length: int, crop: int, stride: int) -> list[int]:
    return [min(i * stride + crop, length) for i in range(max(length - crop + stride - 1, 0) // stride + 1)]
