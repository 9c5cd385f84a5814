"""mIoU and its relatives from per-image pixel counts (docs/method.md, "Inference and metrics").

Everything is derived from confusion matrices (K, K) int64, row = truth, column = prediction, over valid pixels only, so
memory does not grow with the size of the images; per image only vectors of length K are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.spec import IGNORE_INDEX

_NEAR = 0.02  # of the image's diagonal


class Counts(NamedTuple):
    """Valid pixels per image and class: each (N, K), or (S, N, K) for S seeds; of a whole split (K,)."""

    intersection: NDArray
    prediction: NDArray
    truth: NDArray

    @classmethod
    def of_seeds(cls, seeds: Sequence[Counts]) -> Counts:
        """Counts (N, K) of several seeds as one (S, N, K)."""
        return cls(*(np.stack(parts) for parts in zip(*seeds, strict=True)))

    @classmethod
    def of_confusion(cls, matrix: NDArray[np.int64]) -> Counts:
        """(K,) each, of a matrix (K, K)."""
        return cls(matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1))

    def total(self) -> Counts:
        """Over the images: (K,), or (S, K), each."""
        return Counts(*(part.sum(axis=-2) for part in self))


def confusion_matrix(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """(K, K) pixel counts of one image. prediction, truth: (H, W) train ids; truth 255 = ignore, never counted."""
    valid = truth != IGNORE_INDEX
    index = truth[valid].astype(np.int64) * num_classes + prediction[valid]  # (valid pixels,)
    return np.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)


def near_boundaries(labels: NDArray[np.uint8], ignored: NDArray[np.bool_], inside: int) -> NDArray[np.uint8]:
    """Label map (H, W) with `inside` in place of each class whose pixel has no other class near it.

    Near is 2 % of the image's diagonal along both axes, as in Boundary IoU (Cheng et al., CVPR 2021); ignored pixels
    and what is beyond the image count as another class.
    """
    reach = max(1, round(_NEAR * math.hypot(*labels.shape)))
    valid = np.where(ignored, np.uint8(IGNORE_INDEX), labels)
    framed = cv2.copyMakeBorder(valid, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE_INDEX)
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    alone = (cv2.erode(framed, window) == cv2.dilate(framed, window))[1:-1, 1:-1]
    return np.where(alone, np.uint8(inside), labels)


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
    counts = Counts.of_confusion(confusion)
    present = counts.truth > 0
    return Summary(
        miou=float(miou(*counts)),
        pixel_accuracy=float(counts.intersection.sum() / counts.truth.sum()),
        mean_accuracy=float(np.mean(counts.intersection[present] / counts.truth[present])),
        class_iou=iou(*counts),
    )
