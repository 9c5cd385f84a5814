"""Evaluation of one image, whole mode: single scale, and six scales with flips; and the averaging of views alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Case
from benchmarks.networks import CLASSES, ade_benchmark, ade_twins
from benchmarks.toolbox import their_label_map
from pipeline.evaluation.averaging import Whole, label_map
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.evaluation.views import predict

_MANY_CLASSES = 182  # COCO-Stuff
_AGREEMENT = 0.999  # share of pixels; two classes may tie up to rounding


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """Three lines; on the CPU the image is scaled down: short side 128 instead of 512."""
    size = (512, 683) if device.type == "cuda" else (128, 171)
    large = (1024, 2048) if device.type == "cuda" else (512, 1024)
    return {
        "evaluation, single scale": lambda: _case(device, size, "single_scale"),
        "evaluation, ms+flip": lambda: _case(device, size, "ms_flip"),
        "averaging of views": lambda: _averaging(device, large),
    }


def _case(device: torch.device, size: tuple[int, int], name: str) -> Case:
    protocol = ade_benchmark().inference.protocols[name]
    theirs, model = ade_twins(device)
    fast = fold_batch_norm(model)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(4)).to(device)

    @torch.inference_mode()
    def ours() -> Tensor:
        return predict(fast, image, {name: protocol}, size)[name].cpu()

    def reference() -> Tensor:
        return their_label_map(theirs, image, protocol, size)[None]

    return Case(
        f"ResNet-50 at stride 8, K={CLASSES}, image {size[0]}x{size[1]}, {name}",
        ours,
        reference,
        agree,
        rounds=2,
        unit="image",
    )


def _averaging(device: torch.device, size: tuple[int, int]) -> Case:
    generator = torch.Generator().manual_seed(5)
    views = []
    for scale in (0.5, 1.0):
        shape = (int(size[0] * scale) // 8, int(size[1] * scale) // 8)
        views += [torch.rand(1, _MANY_CLASSES, *shape, generator=generator).to(device) for _ in range(2)]
    last = [Whole(view.movedim(1, -1).contiguous()) for view in views]

    def reference() -> Tensor:
        kept = [F.interpolate(view, size=size, mode="bilinear", align_corners=False).cpu() for view in views]
        return (sum(kept) / len(kept)).argmax(dim=1)

    return Case(
        f"K={_MANY_CLASSES}, four views to {size[0]}x{size[1]}, no network",
        lambda: label_map(last, size).cpu(),
        reference,
        agree,
        rounds=3,
        unit="image",
    )


def agree(ours: object, reference: object) -> dict[str, float]:
    """Share of pixels with equal labels."""
    share = (ours == reference).float().mean().item()
    if share < _AGREEMENT:
        raise RuntimeError(f"label maps: only {share:.4%} of the pixels agree with the reference")
    return {"pixels that agree": share}
