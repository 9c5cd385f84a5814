"""COCO-Stuff 10k, version 1.1, with the ids of all 182 names of COCO.

Caesar et al., "COCO-Stuff: thing and stuff classes in context", 2018. One public archive of about 2 GB. Eleven of the
182 names (street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender, hair brush) have no pixels;
results over the other 171 classes are not comparable. Version 1.0 has other ids, COCO-Stuff 164k other images; both are
refused.

Layout: images/ID.jpg, annotations/ID.mat and imageLists/{train,test}.txt with an ID per line. An annotation is the
MATLAB variable `S`: 0 = unlabelled, 1..182 = names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.labels import read_mat
from pipeline.datasets.official import OfficialSource, file_stems, listed_ids
from pipeline.datasets.sources.classes import read_classes
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample

_URL = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip"
_SPLITS = {"train": 9000, "test": 1000}
_ROOT = "cocostuff-10k-v1.1"  # in the raw store
_NAMES_OF_1_0 = 172  # version 1.0: 1 = unlabelled, then 171 classes without gaps

_REMEDY = (
    f"Download {_URL} (about 2 GB) on another machine and set in params.yaml `sources: {{cocostuff10k: PATH}}`, where "
    "PATH is that archive, or a folder with images/, annotations/ and imageLists/."
)
_CLASSES = read_classes("cocostuff10k")


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Link the folder with images, annotations and lists."""
    found = OfficialSource("cocostuff10k", raw_dir, source, (f"{_ROOT}.zip",), _REMEDY, _URL)
    root = found.holding("images", "annotations", "imageLists")
    if root is None:
        if found.holding("stuffthingmaps_trainval2017.zip") or found.holding("train2017"):
            raise found.fail("this is COCO-Stuff 164k, another dataset")
        raise found.fail("no folder in it has images/, annotations/ and imageLists/")
    found.link(_ROOT, root)
    for stem in sorted(file_stems(root / "annotations", ".mat"))[:1]:
        names = read_mat(root / "annotations" / f"{stem}.mat", "names").get("names")
        if names is not None and names.size == _NAMES_OF_1_0:
            raise found.fail(f"{stem}.mat names 172 classes: this is version 1.0, whose ids differ from those of 1.1")


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    root = raw_dir / _ROOT
    for split in _SPLITS:
        for name in listed_ids(root / "imageLists" / f"{split}.txt"):
            yield RawSample(name, split, root / "images" / f"{name}.jpg", root / "annotations" / f"{name}.mat")


DATASET = DatasetSpec(
    name="cocostuff10k",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map={0: IGNORE_INDEX, **{k + 1: k for k in range(len(_CLASSES))}, 255: IGNORE_INDEX},
    licence="CC BY 4.0 for the annotations; the images are under the terms of Flickr",
    homepage="https://github.com/nightrome/cocostuff10k",
    download_bytes=2_000_000_000,
    stray_label_hint="COCO-Stuff 10k v1.1 has 0..182",
)
