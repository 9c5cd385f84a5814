"""mIoU and its relatives from per-image pixel counts (docs/method.md, "Inference and metrics").

Everything is derived from confusion matrices (K, K) int64, row = truth, column = prediction, over valid pixels only, so
memory does not grow with the size of the images, and per image only three vectors of length K are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.spec import IGNORE_INDEX


class Counts(NamedTuple):
    """Valid pixels per image and class: each (N, K), or (S, N, K) for S seeds."""

    intersection: NDArray
    prediction: NDArray
    truth: NDArray

    @classmethod
    def of_seeds(cls, seeds: Sequence[Counts]) -> Counts:
        """Counts (N, K) of several seeds as one (S, N, K)."""
        return cls(*(np.stack(parts) for parts in zip(*seeds, strict=True)))


def confusion_matrix(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """(K, K) pixel counts of one image. prediction, truth: (H, W) train ids; truth 255 = ignore, never counted."""
    valid = truth != IGNORE_INDEX
    index = truth[valid].astype(np.int64) * num_classes + prediction[valid]  # (valid pixels,)
    return np.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou(intersection: NDArray, prediction: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """IoU per class, (..., K) from (..., K) pixel counts. A class neither in the truth nor predicted is NaN."""
    union = prediction + truth - intersection
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, intersection / union, np.nan)


def miou(intersection: NDArray, prediction: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """Mean IoU over the classes that occur in truth or prediction, (...,) from (..., K) pixel counts.

    A class absent from the truth but predicted on a valid pixel counts with IoU 0.
    """
    return np.nanmean(iou(intersection, prediction, truth), axis=-1)


@dataclass(frozen=True)
class Summary:
    """Scores as fractions of one confusion matrix."""

    miou: float
    pixel_accuracy: float
    mean_accuracy: float  # over the classes of the truth
    class_iou: NDArray[np.float64]  # (K,), NaN where the class occurs nowhere


def summarise(confusion: NDArray[np.int64]) -> Summary:
    """All scores of a (K, K) confusion matrix."""
    intersection, prediction, truth = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    present = truth > 0
    return Summary(
        miou=float(miou(intersection, prediction, truth)),
        pixel_accuracy=float(intersection.sum() / truth.sum()),
        mean_accuracy=float(np.mean(intersection[present] / truth[present])),
        class_iou=iou(intersection, prediction, truth),
    )
