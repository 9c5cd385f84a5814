"""The command `predict`: every picture of a folder through a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.config.schema import ProtocolConfig
from pipeline.datasets.transforms import EvalTransform
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import batches
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.export.card import Card
from pipeline.export.source import find_model
from pipeline.files.storage import cached_json, write_json
from pipeline.models import build_segmentor
from pipeline.models.encoder import UNSUPPORTED, check_sizes
from pipeline.predict.network import chosen_protocol, lacks_memory, predict_batch
from pipeline.predict.outputs import ENDINGS, Kind, Outputs
from pipeline.predict.pictures import Picture, find_pictures, read_ahead
from pipeline.runtime.device import resolve_device

_SETTINGS = "prediction.json"  # in the output folder: the model and protocol of its files


class Sample(NamedTuple):
    """A picture, its network input float32 (3, h, w), and its pixels RGB uint8 (H, W, 3) with their (H, W)."""

    picture: Picture
    image: Tensor
    pixels: NDArray[np.uint8]
    size: tuple[int, int]


@dataclass(frozen=True)
class Predictor:
    """A model on its device, how to predict with it, and which outputs to write where."""

    card: Card
    model: nn.Module
    device: torch.device
    protocol: ProtocolConfig
    outputs: Outputs


def predict_folder(
    root: Path,
    model: str,
    images: Path,
    out: Path,
    *,
    ms_flip: bool = False,
    windows: bool = False,
    overlay: bool = False,
    probabilities: bool = False,
    device: str = "auto",
    batch: int = 1,
) -> None:
    """Predict every picture of `images` without up-to-date outputs in `out`, and print how many that were.

    model: see `find_model`. ms_flip, windows: see `chosen_protocol`. overlay, probabilities: see `outputs`. batch:
    pictures of equal size that share a forward pass. Raises PipelineError before any work for wrong arguments, and
    after all work when pictures failed, with the reason for each.
    """
    source = find_model(root, model)
    kinds: list[Kind] = ["labels", *(["overlays"] if overlay else []), *(["probabilities"] if probabilities else [])]
    _require_apart(images, out)
    pictures, others = find_pictures(images)
    protocol = chosen_protocol(source.card.benchmark, ms_flip, windows)
    _claim(out, source.card, protocol)
    outputs = Outputs(out, kinds, source.card.palette)
    left: list[Picture] = []
    failed: list[str] = []
    for picture in pictures:
        with _noting(failed, [picture]):
            if not outputs.are_current(picture):
                left.append(picture)
    present = len(pictures) - len(left) - len(failed)
    if left:
        place = resolve_device(device, "--device")
        network = fold_batch_norm(source.load().to(place), source.card.benchmark.augmentation.crop)
        failed += _predict(Predictor(source.card, network, place, protocol, outputs), left, batch)
    done = len(pictures) - present - len(failed)
    print(f"{out}: {done} predicted, {present} already present, {len(failed)} failed")
    if others:
        print(f"skipped by their endings: {', '.join(f'{n} {ending}' for ending, n in sorted(others.items()))}")
    if failed:
        listed = "\n  ".join(failed)
        raise PipelineError(f"{len(failed)} of {len(pictures)} pictures could not be predicted:\n  {listed}")


def _predict(predictor: Predictor, pictures: Sequence[Picture], batch: int) -> list[str]:
    """Predict and write; returns the errors, one per picture."""
    failed: list[str] = []
    transform = EvalTransform(predictor.card.benchmark.inference.resized(predictor.protocol))
    with tqdm(total=len(pictures), desc="predict", unit="picture", dynamic_ncols=True) as bar:
        for samples in batches(_samples(pictures, transform, predictor.protocol, failed), batch):
            with _noting(failed, [sample.picture for sample in samples]):
                _predict_together(predictor, samples)
            bar.update(len(samples))
        bar.update(len(pictures) - bar.n)
    return failed


def _samples(
    pictures: Sequence[Picture], transform: EvalTransform, protocol: ProtocolConfig, failed: list[str]
) -> Iterator[Sample]:
    """Pictures ready for the network; errors of the others are appended to `failed`."""
    for picture, pixels in read_ahead(pictures):
        if isinstance(pixels, PipelineError):
            failed.append(str(pixels))
            continue
        with _noting(failed, [picture]):
            image = transform(pixels)
            height, width = image.shape[1:]
            if int(min(height, width) * (scale := min(protocol.scales))) < 1:
                raise PipelineError(f"{height}x{width} pixels are too few for scale {scale}; predict without --ms-flip")
            yield Sample(picture, image, pixels, pixels.shape[:2])


@contextmanager
def _noting(failed: list[str], pictures: Sequence[Picture]) -> Iterator[None]:
    """Add an error that is due to `pictures`, or a lack of memory, to `failed`; other errors pass."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, PipelineError) and not lacks_memory(error):
            raise
        remedy = "not enough memory; use a smaller --batch, --windows or --device cpu, or cut it into smaller pictures"
        problem = error if isinstance(error, PipelineError) else remedy
        failed += [f"{picture.file}: {problem}" for picture in pictures]


def _predict_together(predictor: Predictor, samples: Sequence[Sample]) -> None:
    """One forward pass for samples of equal size, and their files."""
    outputs, pairs = predictor.outputs, predictor.card.flip_pairs
    images = torch.stack([sample.image for sample in samples]).to(predictor.device)
    asked = "probabilities" in outputs.kinds
    try:
        labels, shares = predict_batch(predictor.model, images, predictor.protocol, samples[0].size, pairs, asked)
    except UNSUPPORTED as error:
        if not lacks_memory(error):
            _require_readable(predictor, images.shape[2:])
        raise
    for i, sample in enumerate(samples):
        outputs.write(sample.picture, sample.pixels, labels[i], None if shares is None else shares[i])


def _require_readable(predictor: Predictor, size: tuple[int, int]) -> None:
    """Raise PipelineError if the network fails at pictures of this (height, width) whatever they show."""
    benchmark, views = predictor.card.benchmark, predictor.protocol.view_sizes(*size).values()
    with torch.device("meta"):
        network = build_segmentor(benchmark, len(predictor.card.classes), pretrained=False)
        check_sizes(network, benchmark.encoder.name, dict.fromkeys(views, "the picture; try --windows, or resize it"))


def _require_apart(images: Path, out: Path) -> None:
    """Otherwise a second run would take the outputs of the first for pictures."""
    folders = [out.resolve() / kind for kind in ENDINGS]
    if out.resolve().is_relative_to(images.resolve()) or any(images.resolve().is_relative_to(f) for f in folders):
        raise PipelineError(
            f"--out {out} and --images {images} contain each other; choose a folder beside the pictures"
        )


def _claim(out: Path, card: Card, protocol: ProtocolConfig) -> None:
    """Record the model and protocol of the folder; raise PipelineError when its files were made with others."""
    settings = {
        "weights_sha256": card.weights.sha256,
        "benchmark": card.benchmark.id,
        "seed": card.seed,
        "classes": list(card.classes),
        "protocol": protocol.model_dump(mode="json"),
    }
    path = out / _SETTINGS
    found = cached_json(path)
    different = [key for key, value in settings.items() if found and found.get(key) != value]
    if different:
        raise PipelineError(
            f"{path}: this folder was made with another {', '.join(different)}; choose another --out, or delete it"
        )
    write_json(path, settings)
