"""Pictures to predict, a project with two runs to predict them with, and reading what comes out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from helpers.model_benchmarks import SMALL_ENCODER
from helpers.project import TINY
from pipeline.config import Benchmark
from pipeline.config.parse import parse

SIZE = (40, 52)
BENCHMARK = parse(Benchmark, {"id": "tiny", **TINY, "encoder": SMALL_ENCODER | {"depth": 3}}, "tiny")


def scene(seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """RGB (H, W, 3) in patches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def write(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    """Save `pixels`, by default a scene, in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene() if pixels is None else pixels).save(path)
    return path


def labels(path: Path) -> NDArray[np.uint8]:
    """Values of an image file: class numbers of an indexed PNG."""
    with Image.open(path) as image:
        return np.array(image)


def files(folder: Path) -> list[str]:
    """Paths below `folder`, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
