"""LIP (Look Into Person), single person: 19 parts of body and clothing, and the background, which counts as a class.

Gong et al., "Look into Person: self-supervised structure-sensitive learning and a new benchmark for human parsing",
2017. It is distributed through cloud drives, for which there is no stable address: download TrainVal_images.zip and
TrainVal_parsing_annotations.zip of the single person track into one folder and name it in params.yaml; unpacking is
optional. Copies from elsewhere will do: number of images and label values are checked.

Layout: {train,val}_images/ID.jpg (some of one channel), {train,val}_segmentations/ID.png with 0..19, and
{train,val}_id.txt with an ID per line, in folders of various depth. Left and right limbs are different classes, which
swap in a mirrored image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.official import OfficialSource, listed_ids
from pipeline.datasets.spec import DatasetSpec, RawSample

_SPLITS = {"train": 30462, "val": 10000}
_ARCHIVES = ("TrainVal_images.zip", "TrainVal_parsing_annotations.zip")

_REMEDY = (
    f"Download {_ARCHIVES[0]} and {_ARCHIVES[1]} of the single person track at https://lip.sysuhcp.com into one folder "
    "and set in params.yaml `sources: {lip: PATH}`, where PATH is that folder; it may also hold the unpacked "
    "train_images/, train_segmentations/, train_id.txt and the same for val."
)

_CLASSES = {
    "background": (0, 0, 0),
    "hat": (128, 0, 0),
    "hair": (255, 0, 0),
    "glove": (0, 85, 0),
    "sunglasses": (170, 0, 51),
    "upper clothes": (255, 85, 0),
    "dress": (0, 0, 85),
    "coat": (0, 119, 221),
    "socks": (85, 85, 0),
    "pants": (0, 85, 85),
    "jumpsuits": (85, 51, 0),
    "scarf": (52, 86, 128),
    "skirt": (0, 128, 0),
    "face": (0, 0, 255),
    "left arm": (51, 170, 221),
    "right arm": (0, 255, 255),
    "left leg": (85, 255, 170),
    "right leg": (170, 255, 85),
    "left shoe": (255, 255, 0),
    "right shoe": (255, 170, 0),
}


def _fetch(raw_dir: Path, source: str | None) -> None:
    """Link images, labels and list of every split that `source` has."""
    found = OfficialSource("lip", raw_dir, source, _ARCHIVES, _REMEDY)
    linked = False
    for split in _SPLITS:
        names = (f"{split}_images", f"{split}_segmentations", f"{split}_id.txt")
        folders = {name: found.holding(name) for name in names}
        missing = [name for name, folder in folders.items() if folder is None]
        if len(missing) == len(names):
            continue  # a declared part may lack a split; `download` checks the counts
        if missing:
            raise found.fail(f"no {' and no '.join(missing)} in it, nor in {' or '.join(_ARCHIVES)}")
        for name, folder in folders.items():
            found.link(name, folder / name)
            linked = True
    if not linked:
        raise found.fail(f"neither train_images/ nor val_images/ in it, nor {' and '.join(_ARCHIVES)}")


def _samples(raw_dir: Path) -> Iterator[RawSample]:
    for split in _SPLITS:
        images, labels = raw_dir / f"{split}_images", raw_dir / f"{split}_segmentations"
        for name in listed_ids(raw_dir / f"{split}_id.txt"):
            yield RawSample(name, split, images / f"{name}.jpg", labels / f"{name}.png")


DATASET = DatasetSpec(
    name="lip",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    splits=_SPLITS,
    fetch=_fetch,
    samples=_samples,
    label_map={k: k for k in range(len(_CLASSES))},
    licence="own terms: non-commercial research",
    homepage="https://lip.sysuhcp.com",
    flip_pairs=((14, 15), (16, 17), (18, 19)),
    public=False,
    stray_label_hint="LIP's parsing annotations have 0..19: other annotations, or colours",
)
