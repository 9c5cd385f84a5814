"""From normalised images to label maps and probabilities, one band of rows at a time."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.config import Benchmark
from pipeline.config.schema import ProtocolConfig
from pipeline.evaluation.averaging import summed_bands
from pipeline.evaluation.views import FlipPairs, views_of


def chosen_protocol(benchmark: Benchmark, ms_flip: bool, windows: bool) -> ProtocolConfig:
    """The benchmark's test protocol; `windows` slides its training crop, by two thirds of its sides, over the image."""
    inference = benchmark.inference
    protocol = inference.ms_flip if ms_flip else inference.single_scale
    if not windows or protocol.mode == "slide":
        return protocol
    crop = benchmark.augmentation.crop
    stride = tuple(max(1, 2 * side // 3) for side in crop)
    return protocol.model_copy(update={"mode": "slide", "crop": crop, "stride": stride})


def lacks_memory(error: Exception) -> bool:
    """Whether memory ran out: torch has an exception class for a GPU, but only a message for the CPU."""
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.STS_NO_MEM
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@torch.inference_mode()
def predict_batch(
    model: nn.Module,
    images: Tensor,
    protocol: ProtocolConfig,
    size: tuple[int, int],
    flip_pairs: FlipPairs,
    with_probabilities: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.float16] | None]:
    """Label maps (B, H, W) and probabilities (B, K, H, W) of `images` (B, 3, h, w) at `size` = (H, W), or None.

    The views are those of `evaluation.views.predict`. Probabilities are the mean of theirs or, where the protocol
    averages logits, the softmax of the mean logits.
    """
    views = views_of(model, images, {"chosen": protocol}, flip_pairs)["chosen"]
    labels, probabilities = [], []
    for total in summed_bands(views, size):  # (B, n, W, K)
        labels.append(total.argmax(dim=-1).to(torch.uint8).cpu().numpy())  # (B, n, W)
        if with_probabilities:
            mean = total / len(views)
            shares = mean.softmax(dim=-1) if protocol.average == "logits" else mean
            probabilities.append(shares.movedim(-1, 1).to(torch.float16).cpu().numpy())  # (B, K, n, W)
    return np.concatenate(labels, axis=1), np.concatenate(probabilities, axis=2) if with_probabilities else None
