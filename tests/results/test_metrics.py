"""Metrics: against scikit-learn, and the rule for classes that are absent."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, recall_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from pipeline.results.metrics import confusion_matrix, near_boundaries, summarise

CLASSES = 7


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth with void pixels in which every class occurs."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, (23, 31)).astype(np.uint8)
    wrong = rng.integers(0, CLASSES, truth.shape).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, wrong)
    truth[rng.random(truth.shape) < 0.1] = 255
    return prediction, truth


def test_confusion_matrix_equals_scikit_learn() -> None:
    prediction, truth = maps(0)
    valid = truth != 255
    expected = sklearn_confusion(truth[valid], prediction[valid], labels=range(CLASSES))
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, CLASSES), expected)


def test_scores_equal_scikit_learn() -> None:
    prediction, truth = maps(1)
    valid = truth != 255
    summary = summarise(confusion_matrix(prediction, truth, CLASSES))
    assert summary.miou == pytest.approx(jaccard_score(truth[valid], prediction[valid], average="macro"))
    assert summary.pixel_accuracy == pytest.approx(accuracy_score(truth[valid], prediction[valid]))
    assert summary.mean_accuracy == pytest.approx(recall_score(truth[valid], prediction[valid], average="macro"))
    np.testing.assert_allclose(summary.class_iou, jaccard_score(truth[valid], prediction[valid], average=None))


def test_prediction_on_void_pixels_never_counts() -> None:
    prediction, truth = maps(2)
    other = np.where(truth == 255, 3, prediction).astype(np.uint8)
    np.testing.assert_array_equal(confusion_matrix(prediction, truth, CLASSES), confusion_matrix(other, truth, CLASSES))


@pytest.mark.parametrize(("predicted", "last_iou", "miou"), [(1, np.nan, (1 / 2 + 2 / 3) / 2), (2, 0, (1 / 2 + 1) / 3)])
def test_a_class_counts_as_zero_if_only_predicted_and_leaves_the_mean_if_absent(predicted, last_iou, miou) -> None:
    truth, prediction = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, predicted, 1, 1]], np.uint8)
    summary = summarise(confusion_matrix(prediction, truth, 3))
    assert summary.class_iou[2] == pytest.approx(last_iou, nan_ok=True)
    assert summary.miou == pytest.approx(miou)


def blocks(seed: int, ignored: bool = False) -> np.ndarray:
    """A label map (120, 160) of rectangles, with a hole that is ignored."""
    coarse = np.random.default_rng(seed).integers(0, CLASSES, (9, 11), np.uint8)
    labels = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_NEAREST)
    labels[30:55, 40:90] = 255 if ignored else labels[30, 40]
    return labels


def test_near_a_boundary_is_what_the_eroded_mask_of_a_class_leaves() -> None:
    """Cheng et al.: each class by itself is eroded 2 % of the diagonal, with nothing beyond the image."""
    prediction, truth = blocks(0), blocks(1, ignored=True)
    near = [near_boundaries(labels, truth == 255, CLASSES) for labels in (prediction, truth)]
    matrix = confusion_matrix(*near, CLASSES + 1)

    def edge(mask: np.ndarray) -> np.ndarray:
        framed = np.pad(mask.astype(np.uint8), 1)
        return mask & ~cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=4)[1:-1, 1:-1].astype(bool)

    for k in range(CLASSES):
        found, expected = edge((prediction == k) & (truth != 255)), edge(truth == k)
        assert (matrix[k, k], matrix[:, k].sum(), matrix[k].sum()) == tuple(
            part.sum() for part in (found & expected, found, expected)
        )
