"""Names and colours of the datasets with many classes: one table per dataset, in the order of the train ids."""

from __future__ import annotations

import csv
from pathlib import Path

Colour = tuple[int, int, int]


def class_table(dataset: str) -> Path:
    """The table of the classes of `dataset`, if it has one; a few classes are listed in the dataset's module itself."""
    return Path(__file__).with_name(f"{dataset}.csv")


def read_classes(dataset: str) -> dict[str, Colour]:
    """Name -> RGB colour of every class of `dataset`; positions are train ids."""
    with class_table(dataset).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["name"]: (int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows}
