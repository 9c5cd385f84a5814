"""Cross entropy of the final, coarse and auxiliary logits; representation consistency (docs/method.md, "Losses")."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import LossConfig
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor, SegmentorOutput
from pipeline.training.banded_loss import summed_cross_entropy


def median_frequency(counts: NDArray[np.int64]) -> Tensor:
    """Weight of each class (K,) float32: the median of all frequencies over its own (docs/method.md, "Losses").

    counts: (N, K) pixels of each class in each training image. A frequency is a share of the valid pixels of the images
    that contain the class. A class that is in no image weighs 1, and is not part of the median.
    """
    pixels = counts.sum(axis=1, keepdims=True)  # (N, 1)
    present = counts.sum(axis=0) > 0  # (K,)
    frequency = counts.sum(axis=0)[present] / (pixels * (counts > 0)).sum(axis=0)[present]
    weights = np.ones(counts.shape[1], np.float32)
    weights[present] = np.median(frequency) / frequency
    return torch.from_numpy(weights)


def valid_pixels(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Number of pixels of (B, H, W) labels that carry a class, int64 scalar; with weights (K,) the sum of theirs."""
    valid = labels != IGNORE_INDEX
    return valid.sum() if class_weights is None else (class_weights[labels.where(valid, 0)] * valid).sum()


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, valid: Tensor | None = None, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy summed over the valid pixels and divided by `valid`; 0 (with gradient 0) when all is void.

    logits: (B, K, h, w), resized bilinearly to the labels' size; labels: (B, H, W) int64, 255 = ignore. valid: number
    of valid pixels in the whole global batch, of which these may be a part, see `valid_pixels`; None: those of
    `labels`. class_weights: (K,), of the pixels of each class; None: all weigh 1.
    """
    total = summed_cross_entropy(logits, labels, class_weights)
    valid = valid_pixels(labels, class_weights) if valid is None else valid
    return total / torch.where(valid > 0, valid, 1)


def pixel_losses(
    output: SegmentorOutput,
    labels: Tensor,
    weights: LossConfig,
    valid: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted terms on the logits that the model has; all auxiliary heads, each with the full weight, are one term.

    Arguments as for `pixel_cross_entropy`.
    """
    terms = {"final": ([output.logits], weights.final), "auxiliary": (output.auxiliary, weights.auxiliary)}
    if output.coarse is not None:
        terms["coarse"] = ([output.coarse], weights.coarse)
    if output.context is not None:
        terms["context"] = ([output.context], weights.context)
    return {
        name: weight * torch.stack([pixel_cross_entropy(each, labels, valid, class_weights) for each in heads]).sum()
        for name, (heads, weight) in terms.items()
        if heads and weight > 0
    }


def consistency_loss(model: Segmentor, weight: float) -> Tensor:
    """Representation consistency: the final decoder has to classify the memory's own vectors; weighted cross entropy.

    Vectors still at zero take part, as in the authors' code. Trains the final decoder only.
    """
    logits = model.classify_memory()  # (K * S, K)
    slots = logits.shape[0] // logits.shape[1]
    classes = torch.arange(logits.shape[1], device=logits.device).repeat_interleave(slots)  # (K * S,)
    return weight * F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), classes)
