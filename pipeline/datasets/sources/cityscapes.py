"""Cityscapes, fine annotations, with the 19 evaluated classes.

Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", 2016. An account is needed: download
leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB) into one folder and name it in params.yaml;
unpacking is optional.

Layout: leftImg8bit/SET/CITY/NAME_leftImg8bit.png and gtFine/SET/CITY/NAME_gtFine_labelIds.png. There are no id lists.
The labels of the test set are not public (its label files are all void); submissions to the server are in label ids.
Label files with training ids, which some tools derive, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.labels import read_raw
from pipeline.datasets.official import OfficialSource, file_stems
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample

_SPLITS = {"train": 2975, "val": 500, "test": 1525}
_IMAGES, _LABELS = "leftImg8bit", "gtFine"  # in the raw store, and in the archives
_IMAGE_ENDING, _LABEL_ENDING, _TRAIN_ID_ENDING = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_ARCHIVES = (f"{_IMAGES}_trainvaltest.zip", f"{_LABELS}_trainvaltest.zip")
_LABELS_CHECKED = 50

_REMEDY = (
    f"Register at https://www.cityscapes-dataset.com, download {_ARCHIVES[0]} (11 GB) and {_ARCHIVES[1]} (241 MB) into "
    "one folder and set in params.yaml `sources: {cityscapes: PATH}`, where PATH is that folder; it may also hold the "
    f"unpacked {_IMAGES}/ and {_LABELS}/."
)
_TRAIN_IDS = "training ids (0..18, 255) instead of label ids (0..33)"

# Label id -> class; all other ids, 0 to 33, are void.
_CLASSES = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Link the folders of images and labels."""
    found = OfficialSource("cityscapes", raw_dir, source, _ARCHIVES, _REMEDY)
    for name, archive in zip((_IMAGES, _LABELS), _ARCHIVES, strict=True):
        folder = found.holding(name)
        if folder is None:
            raise found.fail(f"neither a folder {name}/ nor {archive} in it")
        found.link(name, folder / name)
    _check_labels(raw_dir, found)


def _check_labels(raw_dir: Path, found: OfficialSource) -> None:
    """Refuse training ids: by file name, by the value 255, or by the absence of ids above 18 in fifty files."""
    for split in ("train", "val"):
        folder = raw_dir / _LABELS / split
        if not _frames(folder, _LABEL_ENDING) and _frames(folder, _TRAIN_ID_ENDING):
            raise found.fail(f"{folder} has *{_TRAIN_ID_ENDING} but no *{_LABEL_ENDING}: {_TRAIN_IDS}")
    labels = [sample.label for sample in _samples(raw_dir) if sample.label is not None and sample.label.is_file()]
    highest = 0
    for path in labels[:: max(1, len(labels) // _LABELS_CHECKED)]:
        highest = max(highest, int(np.max(read_raw(path))))
        if highest == IGNORE_INDEX:
            raise found.fail(f"{path} holds 255, which is not a label id: {_TRAIN_IDS}")
    if labels and highest < len(_CLASSES):
        raise found.fail(f"no label id above {highest} in *{_LABEL_ENDING}: {_TRAIN_IDS}")


def _frames(folder: Path, ending: str) -> set[str]:
    """CITY/NAME of the files CITY/NAME + `ending` in `folder`."""
    return {f"{city.name}/{stem}" for city in folder.glob("*") for stem in file_stems(city, ending)}


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    """Every image and every label: one without the other shows as a missing file."""
    for split in _SPLITS:
        images, labels = raw_dir / _IMAGES / split, raw_dir / _LABELS / split
        labelled = split != "test"
        for name in sorted(_frames(images, _IMAGE_ENDING) | (_frames(labels, _LABEL_ENDING) if labelled else set())):
            label = labels / f"{name}{_LABEL_ENDING}" if labelled else None
            yield RawSample(f"{name}_{_IMAGES}", split, images / f"{name}{_IMAGE_ENDING}", label)


DATASET = DatasetSpec(
    name="cityscapes",
    classes=tuple(name for name, _ in _CLASSES.values()),
    palette=tuple(colour for _, colour in _CLASSES.values()),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map={**dict.fromkeys(range(34), IGNORE_INDEX), **{label_id: k for k, label_id in enumerate(_CLASSES)}},
    licence="own terms: non-commercial research and teaching, no redistribution",
    homepage="https://www.cityscapes-dataset.com",
    unlabelled_splits=("test",),
    submission_ids=tuple(_CLASSES),
    download_bytes=11_241_000_000,
    public=False,
    stray_label_hint=f"255 is not a label id: probably {_TRAIN_IDS}",
)
