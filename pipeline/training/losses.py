"""Cross entropy of the final, coarse and auxiliary logits; representation consistency (docs/method.md, "Losses")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import LossConfig
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor, SegmentorOutput
from pipeline.training.banded_loss import summed_cross_entropy


def valid_pixels(labels: Tensor) -> Tensor:
    """Number of pixels of (B, H, W) labels that carry a class, int64 scalar."""
    return (labels != IGNORE_INDEX).sum()


def pixel_cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Cross entropy summed over the valid pixels and divided by `valid`; 0 (with gradient 0) when all is void.

    logits: (B, K, h, w), resized bilinearly to the labels' size; labels: (B, H, W) int64, 255 = ignore. valid: number
    of valid pixels in the whole global batch, of which these may be a part; None: those of `labels`.
    """
    total = summed_cross_entropy(logits, labels)
    return total / (valid_pixels(labels) if valid is None else valid).clamp(min=1)


def pixel_losses(
    output: SegmentorOutput, labels: Tensor, weights: LossConfig, valid: Tensor | None = None
) -> dict[str, Tensor]:
    """Weighted terms on the logits that the model has; all auxiliary heads, each with the full weight, are one term."""
    terms = {"final": ([output.logits], weights.final), "auxiliary": (output.auxiliary, weights.auxiliary)}
    if output.coarse is not None:
        terms["coarse"] = ([output.coarse], weights.coarse)
    return {
        name: weight * torch.stack([pixel_cross_entropy(logits, labels, valid) for logits in heads]).sum()
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
