"""From normalised images to label maps: whole or sliding, multi-scale + flip (docs/method.md, "Inference and metrics").

Several protocols are computed together, so that the views they share (scale 1 without flip, usually) run once; an image
and its mirror image run as one batch, and so do the windows of a view as far as memory allows. Nothing leaves the
device before the label maps are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import Cascade, ProtocolConfig
from pipeline.evaluation.averaging import Sliding, View, Whole, Window, label_map, summed_bands, unflip
from pipeline.models import SegmentorOutput

FlipPairs = Sequence[tuple[int, int]]

_WINDOW_PIXELS = 2**21  # pixels that share a forward pass when windows are batched: 8 windows of 512x512


@dataclass(frozen=True)
class ForwardSpec:
    """What a forward pass computes. `softmax` applies to windows only: they are averaged after it."""

    scale: float
    crop: tuple[int, int] | None
    stride: tuple[int, int] | None
    softmax: bool


def predict(
    model: nn.Module,
    images: Tensor,
    protocols: Mapping[str, ProtocolConfig],
    size: tuple[int, int],
    flip_pairs: FlipPairs = (),
    cascade: Cascade = "none",
) -> dict[str, Tensor]:
    """Label maps (B, H, W) int64 of `images` under every protocol.

    model: maps (B, 3, h, w) to an output whose `logits` are (B, K, h', w'); in eval mode. images: (B, 3, h, w) float32,
    normalised. size: original (H, W), where the maps are averaged and compared. flip_pairs: classes that swap in a
    mirror image (LIP's left and right). Each view is resized to `size` separately; all count alike. cascade: whether
    a second pass gets the average of the first (whole images only; the model is a `Segmentor`).
    """
    views = views_of(model, images, protocols, flip_pairs)
    if cascade != "none":
        for name, seen in views.items():
            again = partial(_second_pass, model, _average(seen), flip_pairs, cascade)
            views[name] = views_of(again, images, {name: protocols[name]}, flip_pairs)[name]
    return {name: label_map(seen, size) for name, seen in views.items()}  # (B, H, W) each


def views_of(
    model: nn.Module, images: Tensor, protocols: Mapping[str, ProtocolConfig], flip_pairs: FlipPairs = ()
) -> dict[str, list[View]]:
    """All views that each protocol averages: everything that the network has to do. Arguments as for `predict`."""
    users: dict[ForwardSpec, list[str]] = {}
    for name, protocol in protocols.items():
        softmax_in_window = protocol.mode == "slide" and protocol.average == "probabilities"
        for scale in protocol.scales:
            users.setdefault(ForwardSpec(scale, protocol.crop, protocol.stride, softmax_in_window), []).append(name)
    views: dict[str, list[View]] = {name: [] for name in protocols}
    for spec, names in users.items():
        flip = any(protocols[name].flip for name in names)
        straight, *mirrored = _run(model, images, spec, flip, flip_pairs)
        for name in names:
            for view in [straight, *mirrored] if protocols[name].flip else [straight]:
                # Of a whole image, probabilities are taken at feature resolution.
                early = isinstance(view, Whole) and protocols[name].average == "probabilities"
                views[name].append(Whole(view.maps.softmax(dim=-1)) if early else view)
    return views


def _average(views: Sequence[Whole]) -> Tensor:
    """Mean (B, h, w, K) of the views at the size of the largest."""
    size = max(view.maps.shape[1:3] for view in views)
    return torch.cat([*summed_bands(views, size)], dim=1) / len(views)


def _second_pass(
    model: nn.Module, earlier: Tensor, flip_pairs: FlipPairs, cascade: Cascade, batch: Tensor
) -> SegmentorOutput:
    """Output for images (B, 3, h, w), or them and their mirror images (2B, 3, h, w), given `earlier` (B, h, w, K)."""
    if len(batch) > len(earlier):
        earlier = torch.cat([earlier, unflip(earlier, _order(earlier, flip_pairs))])  # to mirror is its own inverse
    return model(batch, earlier.movedim(-1, 1), cascade)


def _run(model: nn.Module, images: Tensor, spec: ForwardSpec, flip: bool, flip_pairs: FlipPairs) -> list[View]:
    """The straight and, if asked for, the mirrored image (flipped back)."""
    scaled = images
    if spec.scale != 1.0:
        scaled = F.interpolate(images, scale_factor=spec.scale, mode="bilinear", align_corners=False)
    batch = torch.cat([scaled, scaled.flip(-1)]) if flip else scaled  # (B or 2B, 3, h, w)
    if spec.crop is None:
        straight, *mirrored = _classes_last(model(batch).logits).chunk(2 if flip else 1)
        return [Whole(straight), *(Whole(unflip(maps, _order(maps, flip_pairs))) for maps in mirrored)]
    windows = _slide(model, batch, spec.crop, spec.stride)
    height, width = batch.shape[-2:]
    parts = [[Window(w.rows, w.columns, m) for m in w.maps.chunk(2 if flip else 1)] for w in windows]
    straight, *mirrored = zip(*parts, strict=True)
    turned = [Sliding(height, width, part, spec.softmax, _order(part[0].maps, flip_pairs)) for part in mirrored]
    return [Sliding(height, width, straight, spec.softmax, None), *turned]


def _slide(model: nn.Module, images: Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Every window of (B, 3, h, w), several per forward pass. The last of a row is moved back to end at the border."""
    height, width = images.shape[-2:]
    places = list(product(_spans(height, crop[0], stride[0]), _spans(width, crop[1], stride[1])))
    (top, bottom), (left, right) = places[0]  # all windows of an image are of one size
    together = max(1, _WINDOW_PIXELS // (len(images) * (bottom - top) * (right - left)))
    windows = []
    for first in range(0, len(places), together):
        some = places[first : first + together]
        crops = torch.cat([images[..., slice(*rows), slice(*columns)] for rows, columns in some])
        maps = _classes_last(model(crops).logits).chunk(len(some))
        windows += [Window(*place, part) for place, part in zip(some, maps, strict=True)]
    return windows


def _classes_last(logits: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, h, w, K) float32, contiguous."""
    return logits.float().movedim(1, -1).contiguous()


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of the windows along one side."""
    steps = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(steps)]
    return [(max(end - crop, 0), end) for end in ends]


def _order(maps: Tensor, pairs: FlipPairs) -> Tensor:
    """(K,) int64: position of each class when those of every pair are exchanged."""
    order = list(range(maps.shape[-1]))
    for a, b in pairs:
        order[a], order[b] = b, a
    return torch.tensor(order, device=maps.device)
