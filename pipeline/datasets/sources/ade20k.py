"""ADE20K with 150 classes: the release of the Scene Parsing Challenge 2016, ADEChallengeData2016.

Zhou et al., "Scene parsing through ADE20K dataset", 2017. One public archive of about 1 GB. The full ADE20K (thousands
of object names, a *_seg.png beside each image) is another dataset, and is refused.

Layout: ADEChallengeData2016/{images,annotations}/{training,validation}/ID.{jpg,png}; annotations: 0 = void, 1..150 =
classes. There are no id lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.official import OfficialSource, file_stems
from pipeline.datasets.sources.classes import read_classes
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample

_URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
_SPLITS = {"train": 20210, "val": 2000}
_FOLDERS = {"train": "training", "val": "validation"}
_ROOT = "ADEChallengeData2016"  # in the raw store, and in the archive

_REMEDY = (
    f"Download {_URL} (about 1 GB) on another machine and set in params.yaml `sources: {{ade20k: PATH}}`, where PATH "
    "is that archive, or a folder with images/ and annotations/, each with training/ and validation/."
)
_FULL_RELEASE = (
    "this is the full ADE20K (ADE20K_2016_07_26 or ADE20K_2021_17_01), but the benchmark uses the 150 classes of "
    "ADEChallengeData2016"
)
_CLASSES = read_classes("ade20k")


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Link the folder of the challenge."""
    found = OfficialSource("ade20k", raw_dir, source, (f"{_ROOT}.zip",), _REMEDY, _URL)
    roots = (found.holding(f"images/{folder}", f"annotations/{folder}") for folder in _FOLDERS.values())
    root = next(filter(None, roots), None)
    if root is None:
        full = any(found.holding(name) for name in ("index_ade20k.mat", "index_ade20k.pkl", "images/training"))
        raise found.fail(_FULL_RELEASE if full else "no folder in it has both images/training and annotations/training")
    if any(file_stems(root / "images" / folder, "_seg.png") for folder in _FOLDERS.values()):
        raise found.fail(f"{root / 'images'} has *_seg.png files: {_FULL_RELEASE}")
    found.link(_ROOT, root)


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    """Every image and every annotation: one without the other is reported as a missing file."""
    for split, folder in _FOLDERS.items():
        images, annotations = raw_dir / _ROOT / "images" / folder, raw_dir / _ROOT / "annotations" / folder
        for stem in sorted(file_stems(images, ".jpg") | file_stems(annotations, ".png")):
            yield RawSample(stem, split, images / f"{stem}.jpg", annotations / f"{stem}.png")


DATASET = DatasetSpec(
    name="ade20k",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map={0: IGNORE_INDEX, **{k + 1: k for k in range(len(_CLASSES))}},
    licence="BSD 3-Clause for the annotations; the images are for non-commercial research and education",
    homepage="http://sceneparsing.csail.mit.edu",
    download_bytes=970_000_000,
    stray_label_hint=f"values above 150: perhaps {_FULL_RELEASE}",
)
