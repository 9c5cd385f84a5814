"""What happens to pictures before and after the network: loading, preprocessing, the report. No reference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.measure import Case
from benchmarks.networks import ade_benchmark, labels
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import read_image, read_label
from pipeline.datasets.sources.digits import SCENE_SIZE
from pipeline.datasets.transforms import TrainTransform

_PICTURES = 8
_SIZE = (512, 683)  # ADE20K's usual one


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """Two lines."""
    return {"data loading": _loading, "preprocessing": _preprocessing}


def _loading() -> Case:
    """Decoding and the training transform in one process on one core, as a worker does it."""
    folder = Path(tempfile.mkdtemp())
    generator = np.random.default_rng(0)
    files = []
    for i in range(_PICTURES):
        coarse = generator.integers(0, 256, (32, 43, 3), dtype=np.uint8)
        image, label = folder / f"{i}.jpg", folder / f"{i}.png"
        cv2.imwrite(str(image), cv2.resize(coarse, _SIZE[::-1], interpolation=cv2.INTER_CUBIC))
        cv2.imwrite(str(label), labels(max(_SIZE), 1, 150)[0, : _SIZE[0], : _SIZE[1]].to(torch.uint8).numpy())
        files.append((image, label))
    transform = TrainTransform(ade_benchmark().augmentation, ())
    epoch = iter(range(1_000_000))

    def run() -> None:
        threads, seed = cv2.getNumThreads(), next(epoch)
        cv2.setNumThreads(0)
        for i, (image, label) in enumerate(files):
            transform(read_image(image), read_label(label), seed * _PICTURES + i)
        cv2.setNumThreads(threads)

    return Case(
        f"JPEG {_SIZE[0]}x{_SIZE[1]}, box 2048x512 scaled by 0.5 to 2, crop 512x512, one core",
        run,
        rounds=5,
        per=_PICTURES,
        unit="image",
    )


def _preprocessing() -> Case:
    """The embedded digits: every image decoded, checked, hashed, written; all cores."""
    spec, folder = get_dataset("digits"), Path(tempfile.mkdtemp())
    download(spec, folder / "raw", None, folder / "source")
    turn = iter(range(1_000_000))
    images = sum(spec.splits.values())
    return Case(
        f"digits, {images} images of {SCENE_SIZE}x{SCENE_SIZE}, scaled to a thousand",
        lambda: prepare(spec, folder / "raw", folder / f"prepared{next(turn)}"),
        rounds=1,
        per=images / 1000,
        unit="1000 images",
    )
