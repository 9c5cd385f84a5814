"""The cross-entropy terms of METHOD section 5."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import LossConfig
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor, SegmentorOutput


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the valid pixels; 0 (with gradient 0) when the whole batch is void.

    logits: (B, K, h, w), resized bilinearly to the labels' size; labels: (B, H, W) int64, 255 = ignore.
    """
    logits = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)  # (B, K, H, W)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    valid = (labels != IGNORE_INDEX).sum()
    return total / valid.clamp(min=1)


def pixel_losses(output: SegmentorOutput, labels: Tensor, weights: LossConfig) -> dict[str, Tensor]:
    """Weighted terms on the final, the coarse and the auxiliary logits, as far as the model has them.

    Every auxiliary head carries the full weight; their sum is one term.
    """
    terms = {"final": ([output.logits], weights.final), "auxiliary": (output.auxiliary, weights.auxiliary)}
    if output.coarse is not None:
        terms["coarse"] = ([output.coarse], weights.coarse)
    return {
        name: weight * torch.stack([pixel_cross_entropy(logits, labels) for logits in heads]).sum()
        for name, (heads, weight) in terms.items()
        if heads and weight > 0
    }


def consistency_loss(model: Segmentor, weight: float) -> Tensor:
    """Weighted cross entropy of the memory's own rows, classified by the final decoder, against their classes.

    Rows still at zero take part, as in the authors' code. Trains the final decoder only.
    """
    logits = model.classify_memory()  # (K * S, K)
    slots = logits.shape[0] // logits.shape[1]
    classes = torch.arange(logits.shape[1], device=logits.device).repeat_interleave(slots)  # (K * S,)
    return weight * F.cross_entropy(logits.float(), classes)
