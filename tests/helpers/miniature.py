"""Small synthetic copies of the published datasets, in the layout in which their owners hand them out.

Each function writes below `folder`, which must exist, and returns what `sources:` in params.yaml may name: an archive,
or with `packed=False` the folder in it. Pictures are real JPEG, PNG and .mat files of 64 to 120 px; every byte of their
pixels follows from the dataset, the split and the number. `Project.sources` then wants `{path, images}`, with as many
images per split as were asked for: `source(path, train=3, val=2)`.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import scipy.io
from numpy.typing import NDArray

ADE20K_VALUES = tuple(range(151))  # 0 = void
COCOSTUFF10K_VALUES = tuple(range(183))  # 0 = unlabelled
CITYSCAPES_VALUES = tuple(range(34))  # label ids
LIP_VALUES = tuple(range(20))

_BLOCK = 16  # px, side of the squares of equal label


def source(path: Path, **images: int) -> dict[str, Any]:
    """The entry of `sources:` for a miniature with that many images per split."""
    return {"path": str(path), "images": images}


def ade20k(folder: Path, train: int = 3, val: int = 2, packed: bool = True) -> Path:
    """`ADEChallengeData2016/` with images/ and annotations/, each with training/ and validation/; one zip."""
    root = folder / "ADEChallengeData2016"
    for split, name, count in (("train", "training", train), ("val", "validation", val)):
        for i in range(count):
            stem = f"ADE_{split}_{i + 1:08d}"
            image, label = _scene("ade20k", split, i, ADE20K_VALUES)
            _write_image(root / "images" / name / f"{stem}.jpg", image)
            _write_image(root / "annotations" / name / f"{stem}.png", label)
    _write_text(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n")
    return _packed(folder, "ADEChallengeData2016.zip", ["ADEChallengeData2016"]) if packed else root


def cocostuff10k(folder: Path, train: int = 3, test: int = 2, packed: bool = True) -> Path:
    """`images/`, `annotations/` (.mat) and `imageLists/`, at the top of one zip."""
    root = folder / "cocostuff10k"
    stems: dict[str, list[str]] = {"train": [], "test": []}
    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            stem = f"COCO_train2014_{1000 * len(stems['train']) + i + 9:012d}"
            stems[split].append(stem)
            image, label = _scene("cocostuff10k", split, i, COCOSTUFF10K_VALUES)
            _write_image(root / "images" / f"{stem}.jpg", image)
            write_mat(root / "annotations" / f"{stem}.mat", S=label.astype(np.uint16))
    for name, listed in {**stems, "all": stems["train"] + stems["test"]}.items():
        _write_text(root / "imageLists" / f"{name}.txt", "".join(f"{stem}\n" for stem in listed))
    return _packed(root, "../cocostuff-10k-v1.1.zip", ["images", "annotations", "imageLists"]) if packed else root


def cityscapes(folder: Path, train: int = 3, val: int = 2, test: int = 2, packed: bool = True) -> Path:
    """A folder with leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or with leftImg8bit/ and gtFine/.

    As in the official archives, the test images have label files in which everything is void.
    """
    root = folder / "cityscapes"
    cities = {"train": ("aachen", "zurich"), "val": ("frankfurt", "lindau"), "test": ("berlin", "bonn")}
    for split, count in (("train", train), ("val", val), ("test", test)):
        for i in range(count):
            city = cities[split][i % 2]
            stem = f"{city}_{i:06d}_000019"
            image, label = _scene("cityscapes", split, i, CITYSCAPES_VALUES, size=(64, 128))
            label = label if split != "test" else np.minimum(label, 3)
            _write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            _write_image(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)
            instances = np.where(label > 23, label.astype(np.uint16) * 1000, label)
            _write_image(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", instances)
    if not packed:
        return root
    archives = folder / "cityscapes-archives"
    archives.mkdir()
    for name in ("leftImg8bit", "gtFine"):
        _write_text(root / "README", "Cityscapes\n")
        _packed(root, f"../{archives.name}/{name}_trainvaltest.zip", [name, "README"])
    return archives


def lip(folder: Path, train: int = 3, val: int = 2, packed: bool = True) -> Path:
    """A folder with TrainVal_images.zip and TrainVal_parsing_annotations.zip, or with what these hold.

    As in LIP itself, not every picture has colours: those of the val split are single-channel JPEG.
    """
    root = folder / "lip"
    for split, count in (("train", train), ("val", val)):
        stems = [f"{i}_{1234567 + (i if split == 'train' else -i - 1)}" for i in range(count)]
        for i, stem in enumerate(stems):
            image, label = _scene("lip", split, i, LIP_VALUES, size=(96 + 8 * i, 64 + 4 * i))
            image = image if split == "train" else image[..., 1]
            _write_image(root / "TrainVal_images" / f"{split}_images" / f"{stem}.jpg", image)
            annotations = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            _write_image(annotations / f"{stem}.png", label)
        _write_text(root / "TrainVal_images" / f"{split}_id.txt", "".join(f"{stem}\n" for stem in stems))
    if not packed:
        return root
    archives = folder / "lip-archives"
    archives.mkdir()
    for name in ("TrainVal_images", "TrainVal_parsing_annotations"):
        _packed(root, f"../{archives.name}/{name}.zip", [name])
    return archives


def write_mat(path: Path, **variables: NDArray[Any]) -> None:
    """A MATLAB 5 file with these variables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)


def _scene(
    dataset: str, split: str, index: int, values: tuple[int, ...], size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and label (H, W) in squares of equal value; the colour of a square goes with its label."""
    rng = np.random.default_rng([crc32(f"{dataset}/{split}".encode()), index])
    height, width = size or tuple(int(side) for side in rng.integers(64, 121, 2))
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    # Every scene holds the last value: that of Cityscapes tells its label ids from training ids.
    coarse = rng.permutation(np.append(rng.choice(values, rows * columns - 1), values[-1])).reshape(rows, columns)
    label = np.kron(coarse, np.ones((_BLOCK, _BLOCK)))[:height, :width].astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    image = colours[label] + rng.normal(0, 12, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8), label


def _write_image(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path}: cannot be written")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _packed(folder: Path, archive: str, members: list[str]) -> Path:
    """Move `members` of `folder` into the zip `archive` (relative to it)."""
    target = (folder / archive).resolve()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as stream:
        for member in members:
            path = folder / member
            for file in sorted([path] if path.is_file() else path.rglob("*")):
                stream.write(file, file.relative_to(folder))
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return target


BUILDERS: Mapping[str, Any] = {"ade20k": ade20k, "cocostuff10k": cocostuff10k, "cityscapes": cityscapes, "lip": lip}
