"""A dataset of four images of 6 x 8 pixels with two classes, written by its own `fetch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline.datasets import DatasetSpec, RawSample

SIZE = (6, 8)


def fetch(raw_dir: Path, source: str | None) -> None:
    """Raw labels 0 = void, 1 and 2 = the classes; the test split has no labels."""
    (raw_dir / "calls").write_text((raw_dir / "calls").read_text() + "x" if (raw_dir / "calls").exists() else "x")
    rng = np.random.default_rng(0)
    for name in ("train_a", "train_b", "val_a", "test_a"):
        cv2.imwrite(str(raw_dir / f"{name}.jpg"), rng.integers(0, 256, (*SIZE, 3), np.uint8))
        if not name.startswith("test"):
            cv2.imwrite(str(raw_dir / f"{name}_label.png"), rng.integers(0, 3, SIZE, np.uint8))


def samples(raw_dir: Path) -> Iterator[RawSample]:
    for image in sorted(raw_dir.glob("*_?.*")):
        split = image.stem.split("_")[0]
        label = None if split == "test" else image.with_name(f"{image.stem}_label.png")
        yield RawSample(f"city/{image.stem}", split, image, label)


SPEC = DatasetSpec(
    name="tiny",
    classes=("low", "high"),
    palette=((0, 0, 0), (255, 0, 0)),
    splits={"train": 2, "val": 1, "test": 1},
    fetch=fetch,
    samples=samples,
    label_map={0: 255, 1: 0, 2: 1},
    licence="none",
    homepage="none",
    unlabelled_splits=("test",),
    submission_ids=(1, 2),
)
