"""From a normalised image tensor to label maps: whole or sliding, scales, flips, averaging (PROTOCOL section 4).

Several protocols are answered together, so that the views they share (scale 1 without flip, usually) run once; an image
and its mirror image run as one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import ProtocolConfig

FlipPairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class _View:
    """What a forward pass computes. `softmax` is part of it for windows only: they average what they return."""

    scale: float
    crop: tuple[int, int] | None
    stride: tuple[int, int] | None
    softmax: bool


def predict(
    model: nn.Module,
    images: Tensor,
    protocols: Mapping[str, ProtocolConfig],
    size: tuple[int, int],
    flip_pairs: FlipPairs = (),
) -> dict[str, Tensor]:
    """Label maps (B, H, W) int64 of `images` under every protocol.

    model: maps (B, 3, h, w) to an output whose `logits` are (B, K, h', w'); in eval mode. images: (B, 3, h, w) float32,
    normalised. size: original (H, W), where the maps are averaged and compared. flip_pairs: classes that swap in a
    mirror image (LIP's left and right). Every view is resized to `size` by itself and all count alike.
    """
    users: dict[_View, list[str]] = {}
    for name, protocol in protocols.items():
        softmax_in_window = protocol.mode == "slide" and protocol.average == "probabilities"
        for scale in protocol.scales:
            users.setdefault(_View(scale, protocol.crop, protocol.stride, softmax_in_window), []).append(name)
    totals: dict[str, Tensor] = {}
    for view, names in users.items():
        flip = any(protocols[name].flip for name in names)
        straight, mirrored = _run(model, images, view, flip, flip_pairs)
        for name in names:
            _add(totals, name, straight, protocols[name], size)
            if protocols[name].flip and mirrored is not None:
                _add(totals, name, mirrored, protocols[name], size)
    return {name: totals[name].argmax(dim=1) for name in protocols}  # (B, H, W) each


def _run(
    model: nn.Module, images: Tensor, view: _View, flip: bool, flip_pairs: FlipPairs
) -> tuple[Tensor, Tensor | None]:
    """Maps of the straight and, if asked for, the mirrored image (turned back), each (B, K, h', w')."""
    scaled = images
    if view.scale != 1.0:
        scaled = F.interpolate(images, scale_factor=view.scale, mode="bilinear", align_corners=False)
    batch = torch.cat([scaled, scaled.flip(-1)]) if flip else scaled  # (B or 2B, 3, h, w)
    if view.crop is None or view.stride is None:
        maps = model(batch).logits  # (B or 2B, K, h', w')
    else:
        maps = _slide(model, batch, view.crop, view.stride, view.softmax)  # (B or 2B, K, h, w)
    if not flip:
        return maps, None
    straight, mirrored = maps.chunk(2)
    return straight, _swap(mirrored.flip(-1), flip_pairs)


def _slide(model: nn.Module, images: Tensor, crop: tuple[int, int], stride: tuple[int, int], softmax: bool) -> Tensor:
    """Mean over overlapping windows, (B, K, h, w). The last window of a row is moved back to end at the border."""
    height, width = images.shape[-2:]
    total: Tensor | None = None  # (B, K, h, w); K is known from the first window on
    count = images.new_zeros(1, 1, height, width)
    for top, bottom in _spans(height, crop[0], stride[0]):
        for left, right in _spans(width, crop[1], stride[1]):
            window = images[..., top:bottom, left:right]
            maps = model(window).logits.float()
            maps = F.interpolate(maps, size=window.shape[-2:], mode="bilinear", align_corners=False)
            if total is None:
                total = maps.new_zeros(*maps.shape[:2], height, width)
            total[..., top:bottom, left:right] += maps.softmax(dim=1) if softmax else maps
            count[..., top:bottom, left:right] += 1
    return total / count


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of the windows along one side."""
    steps = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(steps)]
    return [(max(end - crop, 0), end) for end in ends]


def _swap(maps: Tensor, pairs: FlipPairs) -> Tensor:
    """Exchange the channels of every pair."""
    order = list(range(maps.shape[1]))
    for a, b in pairs:
        order[a], order[b] = b, a
    return maps[:, order]


def _add(totals: dict[str, Tensor], name: str, maps: Tensor, protocol: ProtocolConfig, size: tuple[int, int]) -> None:
    """Resize one view to the original size and add it to the protocol's sum."""
    if protocol.mode == "whole" and protocol.average == "probabilities":
        maps = maps.float().softmax(dim=1)  # at feature resolution, before the resize
    resized = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)  # (B, K, H, W)
    totals[name] = totals[name].add_(resized) if name in totals else resized
