"""The exact memory update at feature resolution (docs/method.md, "Memory update"): features are never upsampled.

The paper pools pixel features f_p, the representations R resized bilinearly to the label map. A bilinear sample has at
most four taps, f_p = sum_j b_pj R_j, and resizing is linear. So what the update needs follows from R itself:

    dot products   <f_p, m> = sum_j b_pj <R_j, m>         one small matrix product, then four gathers per pixel
    norms          |f_p|^2  from inner products of neighbouring R_j, one axis at a time
    weighted sums  sum_p u_p f_p = sum_j (sum_p u_p b_pj) R_j    four scatters per pixel, then one matrix product

Two steps, so that statistics can be summed over parts of a batch between them: `class_statistics`, then `blend`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models.bilinear import AxisTaps, axis_taps

Strategy = Literal["cosine", "mean"]

_NORM_EPS = 1e-8  # floor of both norms in the cosine
_WEIGHT_EPS = 1e-6  # mean pixel weight 1 - cos below this is float32 rounding, not information


class MemoryStatistics(NamedTuple):
    """What pixels contribute to each slot: sums over pixels, which parts of a batch and devices may add up."""

    weighted_sum: Tensor  # (K, S, C) floating, sum of w_p f_p over the pixels of the slot
    weight: Tensor  # (K, S) floating, sum of w_p
    plain_sum: Tensor  # (K, S, C) floating, sum of f_p; may be the tensor `weighted_sum` itself
    count: Tensor  # (K, S) int64, number of pixels


@torch.no_grad()
def class_statistics(memory: Tensor, representations: Tensor, labels: Tensor, strategy: Strategy) -> MemoryStatistics:
    """Pool the pixels of a mini-batch per class and slot.

    memory: (K, S, C). representations: (B, C, h, w). labels: (B, H, W) int64 in 0..K-1 or IGNORE_INDEX. The statistics
    have the dtype of the representations, but at least float32.
    Pixel weight w: 1 - cos(f, its slot) for `cosine` (unfamiliar pixels count more), 1 for `mean`. With several slots
    a pixel belongs to the slot of its class with the largest cosine. A stray label is a RuntimeError, on a GPU once the
    device is waited for: nothing here waits.
    """
    num_classes, slots, channels = memory.shape
    batch, _, *low_size = representations.shape
    valid = labels != IGNORE_INDEX  # (B, H, W) bool
    known = ~valid | ((labels >= 0) & (labels < num_classes))
    torch._assert_async(known.all(), f"a label is neither one of 0..{num_classes - 1} nor {IGNORE_INDEX} (ignore)")
    # Cosines close to 1 are subtracted from 1: at least float32 whatever the precision of the network.
    dtype = torch.promote_types(representations.dtype, torch.float32)
    with torch.autocast(representations.device.type, enabled=False):
        features = representations.detach().to(dtype).movedim(1, -1).reshape(-1, channels)  # (N, C), N = B*h*w
        memory = memory.to(dtype)
        rows, cols = (
            axis_taps(n, m, torch.arange(m, dtype=dtype, device=labels.device))
            for n, m in zip(low_size, labels.shape[1:], strict=True)
        )
        taps = _pixel_taps(rows, cols, batch, low_size)  # four of (rows of `features` (B, H, W), share (H, W))
        classes = labels.where(valid, 0)  # (B, H, W); ignored pixels carry weight 0 below
        # `cells` address the (N, K, S) tables of dot products and of coefficients, flattened.
        cells = [(position * num_classes + classes, share) for position, share in taps]
        weight = None
        if strategy == "cosine":
            norms = _pixel_norms(features.unflatten(0, (batch, *low_size)), rows, cols)  # (B, H, W)
            nearest, cosine = _nearest_slot(features, memory, cells, norms)  # (B, H, W) int64 and floating
            if slots > 1:
                cells = [(cell * slots + nearest, share) for cell, share in cells]
                classes = classes * slots + nearest
            weight = (1 - cosine) * valid  # (B, H, W)
        plain_sum, plain_weight = _pooled(features, cells, valid.to(dtype), num_classes, slots)
        weighted_sum, weight_sum = (
            (plain_sum, plain_weight) if weight is None else _pooled(features, cells, weight, num_classes, slots)
        )
        count = classes.new_zeros(num_classes * slots).scatter_add_(0, classes.flatten(), valid.long().flatten())
    return MemoryStatistics(weighted_sum, weight_sum, plain_sum, count.view(num_classes, slots))


def blend(memory: Tensor, statistics: MemoryStatistics, momentum: float) -> Tensor:
    """Memory (K, S, C) after the update with `statistics`, as a new tensor.

    A class absent from the batch keeps its slots. A class that still has an all-zero slot writes its plain mean into
    the first such slot and nothing else. Any other class: slot <- (1 - momentum) slot + momentum * weighted mean.
    """
    count = statistics.count.unsqueeze(-1)  # (K, S, 1)
    weight = statistics.weight.unsqueeze(-1)  # (K, S, 1)
    # All pixels equal to the slot: the weights are 0/0 in the formula, so fall back to the plain mean.
    uninformative = weight <= _WEIGHT_EPS * count
    plain_mean = statistics.plain_sum / count.clamp(min=1)
    weighted_mean = statistics.weighted_sum / weight.where(~uninformative, 1)
    # A slot of a present class that received no pixel has estimate 0 and decays, as in the authors' code.
    estimate = plain_mean.where(uninformative, weighted_mean)  # (K, S, C)

    class_count = count.sum(dim=1, keepdim=True)  # (K, 1, 1)
    class_mean = statistics.plain_sum.sum(dim=1, keepdim=True) / class_count.clamp(min=1)  # (K, 1, C)
    present = class_count > 0
    empty = (memory == 0).all(dim=-1, keepdim=True)  # (K, S, 1)
    incomplete = empty.any(dim=1, keepdim=True)  # (K, 1, 1)
    first_empty = empty & (empty.cumsum(dim=1) == 1)
    blended = (1 - momentum) * memory + momentum * estimate
    result = blended.where(present & ~incomplete, memory)
    return class_mean.where(present & first_empty, result)


def _pixel_taps(rows: AxisTaps, cols: AxisTaps, batch: int, low_size: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """The four taps of every pixel: position among the B*h*w feature vectors (B, H, W), and its share (H, W)."""
    height, width = low_size
    first = torch.arange(batch, device=rows.low.device)[:, None, None] * (height * width)
    return [
        (first + y[:, None] * width + x, share_y[:, None] * share_x)
        for y, share_y in ((rows.low, 1 - rows.share), (rows.high, rows.share))
        for x, share_x in ((cols.low, 1 - cols.share), (cols.high, cols.share))
    ]


def _pixel_norms(features: Tensor, rows: AxisTaps, cols: AxisTaps) -> Tensor:
    """Norms (B, H, W) of the resized vectors of `features` (B, h, w, C)."""

    def inner(dy: int, dx: int) -> Tensor:
        """<R_yx, R_(y+dy)(x+dx)> as (B, h, w); 0 where the neighbour is outside, which no share reaches."""
        height, width = features.shape[1:3]
        own = features[:, : height - dy, max(-dx, 0) : width - max(dx, 0)]
        neighbour = features[:, dy:, max(dx, 0) : width + min(dx, 0)]
        products = torch.linalg.vecdot(own, neighbour)
        return F.pad(products, (max(-dx, 0), max(dx, 0), 0, dy))

    # First along y: g_yx = (1-t) R[low] + t R[high] at the low-resolution columns x. With its right neighbour g' this
    # gives |g|^2 and <g, g'>, which is all that the interpolation along x needs.
    far = rows.share[:, None]  # (H, 1)
    near = 1 - far
    own, along = inner(0, 0), inner(0, 1)  # (B, h, w) each
    own_y = near**2 * own[:, rows.low] + far**2 * own[:, rows.high]
    own_y += 2 * near * far * inner(1, 0)[:, rows.low]  # (B, H, w) = |g|^2
    along_y = near**2 * along[:, rows.low] + far**2 * along[:, rows.high]
    diagonals = inner(1, 1) + inner(1, -1).roll(-1, dims=2)  # down-right of x, and down-left of x + 1
    along_y += near * far * diagonals[:, rows.low]  # (B, H, w) = <g, g'>

    near, far = 1 - cols.share, cols.share  # (W,)
    squared = near**2 * own_y[:, :, cols.low] + far**2 * own_y[:, :, cols.high]
    squared += 2 * near * far * along_y[:, :, cols.low]
    return squared.clamp_(min=0).sqrt_()  # (B, H, W)


def _nearest_slot(
    features: Tensor, memory: Tensor, cells: list[tuple[Tensor, Tensor]], norms: Tensor
) -> tuple[Tensor, Tensor]:
    """For every pixel the most similar slot of its class (B, H, W) and that cosine (B, H, W)."""
    directions = memory / memory.norm(dim=-1, keepdim=True).clamp(min=_NORM_EPS)  # (K, S, C)
    cosines = []
    for slot in directions.unbind(1):  # (K, C)
        table = (features @ slot.T).view(-1)  # (N * K)
        dots = sum(table[cell] * share for cell, share in cells)  # (B, H, W)
        cosines.append((dots / norms.clamp(min=_NORM_EPS)).clamp(max=1))
    if len(cosines) == 1:
        return torch.zeros_like(cells[0][0]), cosines[0]
    cosine, nearest = torch.stack(cosines).max(dim=0)
    return nearest, cosine


def _pooled(
    features: Tensor, cells: list[tuple[Tensor, Tensor]], weight: Tensor, num_classes: int, slots: int
) -> tuple[Tensor, Tensor]:
    """Sums over pixels of weight * vector (K, S, C) and of weight (K, S): the adjoint of the resize."""
    coefficients = features.new_zeros(len(features) * num_classes * slots)
    for cell, share in cells:
        coefficients.scatter_add_(0, cell.view(-1), (weight * share).view(-1))
    coefficients = coefficients.view(len(features), num_classes * slots)
    pooled = coefficients.T @ features  # (K*S, C)
    # The four shares of a pixel sum to one, so the column sums are the sums of the pixel weights.
    return pooled.view(num_classes, slots, -1), coefficients.sum(dim=0).view(num_classes, slots)
