"""Label maps from many views without holding a (K, H, W) map of any of them: the average exists one row band at a time.

A band of a bilinear resize needs only the few source rows around it, so each view keeps its small maps at feature
resolution and is resized again band by band. Classes come last in memory: every step then reads and writes in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.bilinear import axis_taps, resize

_BAND_VALUES = 2**23  # numbers of one band over all classes: 32 MiB in float32


@dataclass(frozen=True)
class Whole:
    """The maps of one view, (B, h, w, K) float32."""

    maps: Tensor

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.maps.shape[1]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), (B, stop - start, w, K)."""
        return self.maps[:, start:stop]


@dataclass(frozen=True)
class Window:
    """The model's output for one window: its place in the view, and (B, h', w', K) float32 maps."""

    rows: tuple[int, int]  # first, and one past the last
    columns: tuple[int, int]
    maps: Tensor


@dataclass(frozen=True)
class Sliding:
    """The mean of overlapping windows of a view of (height, width) pixels; each is resized to its own size first."""

    height: int
    width: int
    windows: Sequence[Window]
    softmax: bool  # of each window, after its resize
    order: Tensor | None  # the view is a mirror image: (K,) int64 class order for `unflip`

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), (B, stop - start, width, K)."""
        batch, *_, classes = self.windows[0].maps.shape
        total = self.windows[0].maps.new_zeros(batch, stop - start, self.width, classes)
        count = total.new_zeros(stop - start, self.width, 1)
        for window in self.windows:
            (top, bottom), (left, right) = window.rows, window.columns
            first, end = max(start, top), min(stop, bottom)
            if first >= end:
                continue
            part = resized_rows(Whole(window.maps), (bottom - top, right - left), first - top, end - top)
            total[:, first - start : end - start, left:right] += part.softmax(dim=-1) if self.softmax else part
            count[first - start : end - start, left:right] += 1
        total /= count
        return total if self.order is None else unflip(total, self.order)


View = Whole | Sliding


def label_map(views: Sequence[View], size: tuple[int, int]) -> Tensor:
    """Class with the largest sum over `views`, each resized to `size` = (H, W) separately: (B, H, W) int64."""
    return torch.cat([total.argmax(dim=-1) for total in summed_bands(views, size)], dim=1)


def summed_bands(views: Sequence[View], size: tuple[int, int]) -> Iterator[Tensor]:
    """The sum over `views`, each resized to `size` = (H, W) separately, in bands of rows (B, n, W, K), top first."""
    height, width = size
    batch, *_, classes = views[0].rows(0, 1).shape  # (B, 1, w, K)
    rows = max(1, _BAND_VALUES // (batch * width * classes))
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total = resized_rows(views[0], size, start, stop)  # (B, n, W, K)
        for view in views[1:]:
            total += resized_rows(view, size, start, stop)
        yield total


def resized_rows(view: View, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Rows [start, stop) of `view` resized to `size`, bilinear with align_corners False: (B, stop - start, W, K)."""
    # On the CPU, so that the rows to read are known without waiting for the device.
    low, high, share = axis_taps(view.height, size[0], torch.arange(start, stop, dtype=torch.float32))  # (n,) each
    first = int(low[0])
    maps = view.rows(first, int(high[-1]) + 1)  # (B, n', w, K)
    low, high, share = (t.to(maps.device) for t in (low - first, high - first, share[:, None, None]))
    between = maps.index_select(1, low).mul_(1 - share)
    between += maps.index_select(1, high).mul_(share)  # (B, n, w, K)
    # Rows are in place already, and a resize from n to n rows leaves them as they are.
    return resize(between.movedim(-1, 1), (stop - start, size[1])).movedim(1, -1)


def unflip(maps: Tensor, order: Tensor) -> Tensor:
    """(B, h, w, K) of a mirror image, for the image itself: columns reversed, left and right classes exchanged."""
    return maps.flip(2).index_select(-1, order)
