"""Cross entropy of upsampled logits without the upsampled logits: loss and gradient come one band of rows at a time.

A bilinear resize is linear and acts on rows and columns separately, so a band of label rows needs a few rows of the
small logits, and its gradient goes back to the same few. Both are known before the next band is looked at: nothing of
size (B, K, H, W) ever exists, where log-softmax would otherwise keep such a tensor for every head until the backward
pass.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models.bilinear import resize_matrix, source_rows

# Numbers of one band over all classes. A CPU wants a band in its cache, a GPU few and large operations.
_CPU_BAND_VALUES = 2**20
_DEVICE_BAND_VALUES = 2**24


def summed_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy summed over the pixels that carry a class, a scalar in float32 (float64 for such logits).

    logits: (B, K, h, w) of any floating type, resized bilinearly (align_corners False) to the labels' size in float32.
    labels: (B, H, W) int64 in 0..K-1, or 255 = ignore; another value raises what `F.nll_loss` raises on that device.
    class_weights: (K,) of the pixels of each class; None: all weigh 1. Can be differentiated once: RuntimeError with
    create_graph.
    """
    return _SummedCrossEntropy.apply(logits, labels, class_weights)


class _SummedCrossEntropy(torch.autograd.Function):
    """Computes the gradient with the loss and keeps it: the gradient of a sum only has to be scaled later."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
        small = logits.to(torch.promote_types(logits.dtype, torch.float32))
        ctx.dtype = logits.dtype
        # Matrix products in full precision, whatever the network's. Autocast does not support the meta device.
        exact = contextlib.nullcontext() if logits.is_meta else torch.autocast(logits.device.type, enabled=False)
        with exact:
            loss, gradient = _bands(small, labels, None if class_weights is None else class_weights.to(small))
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # `once_differentiable` would let a graph pass in which this is a constant
            raise RuntimeError("the banded cross entropy has no second derivative; use create_graph=False")
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream).to(ctx.dtype), None, None


def _bands(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The summed loss, and its gradient with respect to `logits`, (B, K, h, w)."""
    batch, classes, height, width = logits.shape
    full_height, full_width = labels.shape[1:]
    rows, columns = (resize_matrix(n, m, logits) for n, m in ((height, full_height), (width, full_width)))
    values = _CPU_BAND_VALUES if logits.device.type == "cpu" else _DEVICE_BAND_VALUES
    step = max(1, values // (batch * classes * full_width))
    logits = logits.contiguous()
    loss, gradient = logits.new_zeros(()), torch.zeros_like(logits)
    for start in range(0, full_height, step):
        stop = min(start + step, full_height)
        first, end = source_rows(start, stop, height, full_height)
        band_rows, target = rows[start:stop, first:end], labels[:, start:stop]
        scores = (band_rows @ logits[:, :, first:end] @ columns.T).log_softmax(dim=1)  # (B, K, n, W)
        loss += F.nll_loss(scores, target, class_weights, ignore_index=IGNORE_INDEX, reduction="sum")
        # d loss / d scores before the softmax: probabilities, less one at the pixel's class; nothing where ignored.
        valid = (target != IGNORE_INDEX)[:, None]  # (B, 1, n, W)
        error = scores.exp_()
        error.scatter_add_(1, target[:, None].where(valid, 0), valid.to(error.dtype).neg_())
        error *= valid if class_weights is None else valid * class_weights[target[:, None].where(valid, 0)]
        gradient[:, :, first:end] += band_rows.T @ (error @ columns)
    return loss, gradient
