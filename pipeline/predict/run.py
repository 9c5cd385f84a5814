"""The command `predict`: every picture of a folder through a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
from pipeline.predict.network import chosen_protocol, lacks_memory, predict_batch, require_size
from pipeline.predict.outputs import (
    ENDINGS,
    Kind,
    is_done,
    new_array,
    output_path,
    require_names,
    write_labels,
    write_overlay,
)
from pipeline.predict.pictures import Picture, find_pictures, read_ahead
from pipeline.runtime.device import resolve_device

_SETTINGS = "prediction.json"  # in the output folder: what its files were made with


class Sample(NamedTuple):
    """A picture, its network input float32 (3, h, w), its pixels RGB uint8 (H, W, 3), and (H, W)."""

    picture: Picture
    image: Tensor
    pixels: NDArray[np.uint8]
    size: tuple[int, int]


@dataclass(frozen=True)
class Predictor:
    """A model on its device, and what to do with it."""

    card: Card
    model: nn.Module
    device: torch.device
    protocol: ProtocolConfig
    out: Path
    kinds: Sequence[Kind]


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
    """Predict every picture of `images` that has no up-to-date outputs in `out` yet, and print how many that were.

    model: see `find_model`. ms_flip, windows: see `chosen_protocol`. overlay, probabilities: see `outputs`. batch:
    pictures of equal size that share a forward pass. Raises PipelineError before any work when something does not fit,
    and after all work when pictures could not be predicted, naming each.
    """
    source = find_model(root, model)
    kinds: list[Kind] = ["labels", *(["overlays"] if overlay else []), *(["probabilities"] if probabilities else [])]
    _require_apart(images, out)
    pictures, others = find_pictures(images)
    protocol = chosen_protocol(source.card.benchmark, ms_flip, windows)
    _claim(out, source.card, protocol)
    left, failed = _to_do(out, kinds, pictures)
    there = len(pictures) - len(left) - len(failed)
    if left:
        place = resolve_device(device, "--device")
        network = fold_batch_norm(source.load().to(place))
        failed += _predict(Predictor(source.card, network, place, protocol, out, kinds), left, batch)
    done = len(pictures) - there - len(failed)
    print(f"{out}: {done} predicted, {there} were there already, {len(failed)} failed")
    if others:
        print(f"left out by their endings: {', '.join(f'{n} {ending}' for ending, n in sorted(others.items()))}")
    if failed:
        listed = "\n  ".join(failed)
        raise PipelineError(f"{len(failed)} of {len(pictures)} pictures could not be predicted:\n  {listed}")


def _to_do(out: Path, kinds: Sequence[Kind], pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """The pictures to predict; and what is wrong with those whose outputs could not be written."""
    left, failed = [], []
    for picture in pictures:
        try:
            require_names(out, kinds, picture)
            if not is_done(out, kinds, picture):
                left.append(picture)
        except PipelineError as error:
            failed.append(str(error))
    return left, failed


def _predict(predictor: Predictor, pictures: Sequence[Picture], batch: int) -> list[str]:
    """Predict and write; returns what went wrong, one entry per picture."""
    failed: list[str] = []
    transform = EvalTransform(predictor.card.benchmark.inference.resize)
    with tqdm(total=len(pictures), desc="predict", unit="picture", dynamic_ncols=True) as bar:
        for samples in batches(_samples(pictures, transform, predictor.protocol, failed), batch):
            try:
                _predict_together(predictor, samples)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                on_cpu = predictor.device.type == "cpu"
                remedy = "a smaller --batch or --windows" if on_cpu else "a smaller --batch, --windows or --device cpu"
                failed += [f"{s.picture.file}: {s.size[0]}x{s.size[1]}: no memory left; use {remedy}" for s in samples]
            bar.update(len(samples))
        bar.update(len(pictures) - bar.n)
    return failed


def _samples(
    pictures: Sequence[Picture], transform: EvalTransform, protocol: ProtocolConfig, failed: list[str]
) -> Iterator[Sample]:
    """Pictures ready for the network; those that cannot be go to `failed`."""
    for picture, pixels in read_ahead(pictures):
        if isinstance(pixels, PipelineError):
            failed.append(str(pixels))
            continue
        try:
            image = transform(pixels)
            require_size(image, protocol)
        except PipelineError as error:
            failed.append(f"{picture.file}: {error}")
            continue
        except Exception as error:
            if not lacks_memory(error):
                raise
            failed.append(f"{picture.file}: no memory left for the network's input; cut it into smaller pictures")
            continue
        yield Sample(picture, image, pixels, pixels.shape[:2])


def _predict_together(predictor: Predictor, samples: Sequence[Sample]) -> None:
    """One forward pass for samples of equal size, and their files."""
    card, size = predictor.card, samples[0].size
    images = torch.stack([sample.image for sample in samples]).to(predictor.device)
    with ExitStack() as files:
        maps: list[NDArray[np.float16]] = []
        if "probabilities" in predictor.kinds:
            paths = [output_path(predictor.out, "probabilities", sample.picture) for sample in samples]
            maps = [files.enter_context(new_array(path, (len(card.classes), *size))) for path in paths]
        labels = predict_batch(predictor.model, images, predictor.protocol, size, card.flip_pairs, maps)
    for sample, label in zip(samples, labels, strict=True):
        write_labels(output_path(predictor.out, "labels", sample.picture), label, card.palette)
        if "overlays" in predictor.kinds:
            path = output_path(predictor.out, "overlays", sample.picture)
            write_overlay(path, sample.pixels, label, card.palette)


def _require_apart(images: Path, out: Path) -> None:
    """A second run must not take the outputs of the first for pictures."""
    folders = [out.resolve() / kind for kind in ENDINGS]
    if out.resolve().is_relative_to(images.resolve()) or any(images.resolve().is_relative_to(f) for f in folders):
        raise PipelineError(
            f"--out {out} and --images {images} lie in one another; choose a folder beside the pictures"
        )


def _claim(out: Path, card: Card, protocol: ProtocolConfig) -> None:
    """Note what the folder's files are made with; raise PipelineError when it holds files made with something else."""
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
