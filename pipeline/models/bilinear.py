"""Bilinear resizing with align_corners False, the only resize of the method, as a whole and one axis at a time.

A resize is linear and acts on rows and columns separately. `resize` makes the whole map. `axis_taps` gives an axis as
two input positions per output position, `resize_matrix` as a matrix: what the memory update, the banded loss and the
averaging of views need in order to work with an upsampled map that never exists as a whole.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class AxisTaps(NamedTuple):
    """Where the outputs of one axis are sampled: (1 - share) * input[low] + share * input[high]."""

    low: Tensor  # (out,) int64
    high: Tensor  # (out,) int64; equal to `low` at the far border
    share: Tensor  # (out,) floating, in [0, 1]


def axis_taps(size_in: int, size_out: int, outputs: Tensor) -> AxisTaps:
    """Taps of the positions `outputs`, (out,) floating whole numbers of 0..size_out-1, whose dtype `share` has."""
    source = ((outputs + 0.5) * (size_in / size_out) - 0.5).clamp(min=0, max=size_in - 1)
    low = source.floor()
    return AxisTaps(low.long(), (low.long() + 1).clamp(max=size_in - 1), source - low)


def resize_matrix(size_in: int, size_out: int, like: Tensor) -> Tensor:
    """(size_out, size_in): one axis as a matrix, rounded as `resize` rounds; dtype and device are those of `like`."""
    units = torch.eye(size_in, dtype=like.dtype, device=like.device)
    return F.interpolate(units[None], size=size_out, mode="linear", align_corners=False)[0].T.contiguous()


def source_rows(start: int, stop: int, size_in: int, size_out: int) -> tuple[int, int]:
    """[first, end) of the input rows that output rows [start, stop) can touch, with one to spare for rounding."""
    first = math.floor((start + 0.5) * size_in / size_out - 0.5) - 1
    last = math.floor((stop - 0.5) * size_in / size_out - 0.5) + 2
    return max(first, 0), min(last + 1, size_in)
