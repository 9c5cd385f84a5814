"""Clothing Co-Parsing: street photographs with 35 classes of clothing, skin, hair and background.

Yang et al., "Clothing co-parsing by joint image segmentation and labeling", CVPR 2014: the 1,004 photographs with pixel
labels. No registration. The authors define no split; here the ids in the order of their SHA-256 are 604 for training,
100 for validation and 300 for the test. Of the 59 labels the 35 that occur in at least 30 photographs are classes; the
others, 0.9 % of the pixels, are ignored.

Layout: photos/NNNN.jpg and annotations/pixel-level/NNNN.mat with the MATLAB variable `groundtruth`, 0..58.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.official import OfficialSource, file_stems
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample

_URL = "https://github.com/bearpaw/clothing-co-parsing/archive/fe34fb77.zip"
_ARCHIVES = ("fe34fb77.zip", "clothing-co-parsing-fe34fb77.zip")  # the name depends on the browser
_SPLITS = {"train": 604, "val": 100, "test": 300}
_FOLDER = "clothing-co-parsing"  # in the raw store
_LABELS = "annotations/pixel-level"

_REMEDY = (
    f"Download {_URL} on another machine and set in params.yaml `sources: {{ccp: PATH}}`, where PATH is that archive, "
    f"or a folder with photos/ and {_LABELS}/."
)

# The value of each class in the label files.
_NAMED = """
    0 background, 1 accessories, 2 bag, 3 belt, 4 blazer, 5 blouse, 7 boots, 9 bracelet, 13 coat, 14 dress, 19 hair,
    20 hat, 24 jacket, 25 jeans, 27 leggings, 29 necklace, 31 pants, 33 purse, 36 sandals, 37 scarf, 38 shirt, 39 shoes,
    40 shorts, 41 skin, 42 skirt, 44 socks, 45 stockings, 46 suit, 47 sunglasses, 48 sweater, 49 sweatshirt, 51 t-shirt,
    54 top, 55 vest, 57 watch
"""
_CLASSES = {name: int(value) for value, name in (entry.split() for entry in _NAMED.split(","))}
_RAW_LABELS = 59


def split_of() -> dict[str, str]:
    """Every id and its split."""
    ids = [f"{number:04d}" for number in range(1, sum(_SPLITS.values()) + 1)]
    ids.sort(key=lambda each: hashlib.sha256(each.encode()).hexdigest())
    names = [split for split, number in _SPLITS.items() for _ in range(number)]
    return dict(zip(ids, names, strict=True))


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Link the folder with photographs and labels."""
    found = OfficialSource("ccp", raw_dir, source, _ARCHIVES, _REMEDY, _URL)
    root = found.holding("photos", _LABELS)
    if root is None:
        raise found.fail(f"no folder in it has photos/ and {_LABELS}/")
    found.link(_FOLDER, root)


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    root, splits = raw_dir / _FOLDER, split_of()
    found = file_stems(root / "photos", ".jpg") | file_stems(root / _LABELS, ".mat")
    for name in sorted(found & set(splits)):  # the other 1,094 photographs have no pixel labels
        yield RawSample(name, splits[name], root / "photos" / f"{name}.jpg", root / _LABELS / f"{name}.mat")


def _colour(k: int) -> tuple[int, int, int]:
    """Hues by the golden ratio, in three brightnesses; background is dark."""
    red, green, blue = colorsys.hsv_to_rgb(0.618 * k % 1, 0.75, (0.95, 0.75, 0.55)[k % 3]) if k else (0.15, 0.15, 0.15)
    return round(255 * red), round(255 * green), round(255 * blue)


DATASET = DatasetSpec(
    name="ccp",
    classes=tuple(_CLASSES),
    palette=tuple(_colour(k) for k in range(len(_CLASSES))),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map=dict.fromkeys(range(_RAW_LABELS), IGNORE_INDEX) | {raw: k for k, raw in enumerate(_CLASSES.values())},
    label_variable="groundtruth",
    licence="Apache-2.0 for the annotations; the photographs show people and stay out of reports",
    homepage="https://github.com/bearpaw/clothing-co-parsing",
    shown=False,
)
