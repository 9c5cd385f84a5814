"""Handwritten digits in photographs: a small scene-parsing task with real data that needs no download.

Scenes are composed from the 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998) and the two photographs
in scikit-learn. Splits share no handwriting sample and no region of a photograph; a scene depends only on its split and
number.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.datasets.spec import DatasetSpec, RawSample
from pipeline.errors import PipelineError
from pipeline.files.storage import write_png

# Difficulty of the task. Editing any of these makes the scenes stale: the next `dvc repro` draws them again.
SCENE_SIZE = 64  # px, side
SCENES = {"train": 1200, "val": 200, "test": 200}
DIGITS_PER_SCENE = (1, 2)  # a digit for which no place is found is left out
DIGIT_SIZE = (36, 48)  # px, side of the enlarged 8x8 sample
ROTATION = 8.0  # degrees, either way
PHOTO_CONTRAST = 0.5  # of the photographs: at full contrast bars of buildings are taken for the digit one
MIN_CONTRAST = 90.0  # grey levels between ink and the background under it
INK_OPACITY = (0.9, 1.0)
INK_LEVELS = (0.1, 0.4)  # share of full ink that begins and completes a stroke
MAX_COVERED = 0.15  # share of an earlier digit's strokes that a later one may hide
# Share of the handwriting samples of every class, and columns of both photographs, that belong to a split.
SAMPLE_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
PHOTO_COLUMNS = {"train": (0, 400), "val": (400, 510), "test": (510, 640)}

_SEED = 2021
_PLACEMENT_TRIES = 30
_FOLDER = "scenes"
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LUMA = np.array((0.299, 0.587, 0.114))

Array = NDArray[np.float64]


@cache
def split_samples() -> dict[str, NDArray[np.int64]]:
    """Indices into `load_digits()` per split: every class is shuffled once and cut by SAMPLE_SHARES."""
    target = _handwriting()[1]
    rng = np.random.default_rng(_SEED)
    parts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SAMPLE_SHARES}
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(target == digit))
        cuts = np.round(np.cumsum(list(SAMPLE_SHARES.values()))[:-1] * len(indices)).astype(int)
        for split, part in zip(SAMPLE_SHARES, np.split(indices, cuts), strict=True):
            parts[split].append(part)
    return {split: np.concatenate(chosen) for split, chosen in parts.items()}


def compose_scene(split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scene `index` of `split`: RGB uint8 (S, S, 3) and label uint8 (S, S), 0 = background, 1..10 = zero..nine."""
    rng = np.random.default_rng([_SEED, list(SCENES).index(split), index])
    image = _background(split, rng)
    label = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)
    layers = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)  # 1, 2, ...: which digit is on top
    ink_areas: list[int] = []
    for _ in range(rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)):
        digit = int(rng.integers(10))
        alpha = _stroke(split, digit, rng)  # (h, w)
        corner = _place(alpha > 0.5, layers, ink_areas, rng)
        if corner is None:
            continue
        window = tuple(slice(start, start + side) for start, side in zip(corner, alpha.shape, strict=True))
        ink = _ink(image[window], alpha, rng)
        opacity = (rng.uniform(*INK_OPACITY) * alpha)[..., None]  # (h, w, 1)
        image[window] = (1 - opacity) * image[window] + opacity * ink
        ink_areas.append(int((alpha > 0.5).sum()))
        label[window][alpha > 0.5] = digit + 1
        layers[window][alpha > 0.5] = len(ink_areas)
    return np.round(image).astype(np.uint8), label


@cache
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    from sklearn.datasets import load_sample_images

    return tuple(load_sample_images().images)  # china.jpg and flower.jpg, each (427, 640, 3)


@cache
def _handwriting() -> tuple[Array, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # takes seconds, and every stage imports this module for its DATASET

    digits = load_digits()
    return digits.images / 16.0, digits.target  # (1797, 8, 8) ink coverage 0..1


def _background(split: str, rng: np.random.Generator) -> Array:
    """A crop (S, S, 3) of the split's columns of a photograph, mirrored at random."""
    photo = _photographs()[rng.integers(2)]
    left, right = PHOTO_COLUMNS[split]
    top = rng.integers(photo.shape[0] - SCENE_SIZE + 1)
    x = rng.integers(left, right - SCENE_SIZE + 1)
    crop = 128 + PHOTO_CONTRAST * (photo[top : top + SCENE_SIZE, x : x + SCENE_SIZE] - 128.0)
    return crop[:, ::-1].copy() if rng.random() < 0.5 else crop


def _stroke(split: str, digit: int, rng: np.random.Generator) -> Array:
    """Opacity (h, w) in 0..1 of a random sample of `digit`, enlarged, turned and cut to its bounding box."""
    from scipy import ndimage

    images, target = _handwriting()
    own = split_samples()[split]
    sample = images[rng.choice(own[target[own] == digit])]  # (8, 8)
    side = int(rng.integers(DIGIT_SIZE[0], DIGIT_SIZE[1] + 1))
    angle = np.deg2rad(rng.uniform(-ROTATION, ROTATION))
    canvas = int(np.ceil(side * 1.25))  # room for the corners of the turned square
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (8 / side)
    centre = np.full(2, (canvas - 1) / 2)
    coverage = ndimage.affine_transform(sample, turn, 3.5 - turn @ centre, (canvas, canvas), order=3)  # bicubic
    low, high = INK_LEVELS
    alpha = np.clip((coverage - low) / (high - low), 0, 1)
    return alpha[ndimage.find_objects((alpha > 0).astype(int))[0]]


def _place(
    mask: NDArray[np.bool_], layers: NDArray[np.uint8], ink_areas: list[int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner (top, left) where `mask` hides at most MAX_COVERED of every earlier digit; None when none is found."""
    height, width = mask.shape
    for _ in range(_PLACEMENT_TRIES):
        top, left = int(rng.integers(SCENE_SIZE - height + 1)), int(rng.integers(SCENE_SIZE - width + 1))
        above = layers.copy()
        above[top : top + height, left : left + width][mask] = 0
        left_over = np.bincount(above.ravel(), minlength=len(ink_areas) + 1)[1:]
        if all(left_over >= (1 - MAX_COVERED) * np.array(ink_areas)):
            return top, left
    return None


def _ink(patch: Array, alpha: Array, rng: np.random.Generator) -> Array:
    """A random colour (3,) whose luma differs from that of the background under the strokes by MIN_CONTRAST."""
    under = float((patch[alpha > 0.5] @ _LUMA).mean())
    colours = rng.uniform(0, 255, (64, 3))
    difference = np.abs(colours @ _LUMA - under)
    good = np.flatnonzero(difference >= MIN_CONTRAST)
    return colours[good[0] if len(good) else difference.argmax()]


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Draw every scene into `raw_dir/scenes/{images,labels}/SPLIT_NUMBER.png`."""
    if source is not None:
        raise PipelineError("params.yaml: sources.digits: this dataset is built in; remove the key or set it to null")
    temporary = raw_dir / f"{_FOLDER}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    for split, name, index in tqdm(list(_numbers()), desc="draw digits", unit="scene", disable=None):
        image, label = compose_scene(split, index)
        write_png(temporary / "images" / f"{name}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        write_png(temporary / "labels" / f"{name}.png", label)
    shutil.rmtree(raw_dir / _FOLDER, ignore_errors=True)
    temporary.rename(raw_dir / _FOLDER)


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    for split, name, _ in _numbers():
        folder = raw_dir / _FOLDER
        yield RawSample(name, split, folder / "images" / f"{name}.png", folder / "labels" / f"{name}.png")


def _numbers() -> Iterator[tuple[str, str, int]]:
    """(split, name, number) of every scene."""
    for split, count in SCENES.items():
        for index in range(count):
            yield split, f"{split}_{index:04d}", index


DATASET = DatasetSpec(
    name="digits",
    classes=("background", *_NAMES),
    palette=(
        (0, 0, 0),
        *((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
        *((145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212)),
    ),
    splits=SCENES,
    fetch=_fetch,
    samples=_samples,
    label_map=None,
    licence="BSD-3-Clause (scikit-learn); the digits: UCI repository, CC BY 4.0; the photographs: CC BY 2.0",
    homepage="https://scikit-learn.org/stable/datasets.html",
    image_size=(SCENE_SIZE, SCENE_SIZE),
    download_bytes=0,
)
