"""Read the prepared form of a dataset: the table of its images, and the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config.parse import nearest
from pipeline.errors import PipelineError
from pipeline.files.storage import read_json


class Prepared:
    """A folder that `prepare` wrote.

    table: one row per image, sorted by (split, id): id, split, image and label (paths relative to `root`; label missing
    when there is none), height, width, histogram (K+1 pixel counts: the classes, then ignored), image_sha256 (of the
    file), label_sha256 (of the pixels). info: `dataset.json`, see `prepare`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.info: dict[str, Any] = read_json(root / "dataset.json", f"run `dvc repro` to prepare {root.name}")
            self.table: pd.DataFrame = pd.read_parquet(root / "table.parquet")
        except FileNotFoundError as error:
            raise PipelineError(f"{error.filename or root}: missing; run `dvc repro` to prepare {root.name}") from None

    def split(self, names: Sequence[str]) -> pd.DataFrame:
        """Rows of the named splits in table order, `image` and `label` as full paths (label None when there is none).

        Raises PipelineError for a split that the dataset does not have.
        """
        known = list(self.info["splits"])
        for name in names:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean `{near}`?" if near else f"it has {', '.join(known)}"
                raise PipelineError(f"{self.info['name']}: no split {name!r}; {hint}")
        rows = self.table[self.table["split"].isin(list(names))].reset_index(drop=True)
        images = [self.root / path for path in rows["image"]]
        labels = [None if pd.isna(path) else self.root / path for path in rows["label"]]
        return rows.assign(image=pd.Series(images, dtype=object), label=pd.Series(labels, dtype=object))


def drawn(rows: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """A share of the `rows` of a `Prepared.split`, in their order: the first ones of a shuffle by `seed`.

    At least one row. With equal seeds a smaller share is part of every larger one.
    """
    if fraction == 1.0:
        return rows
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    kept = np.sort(order[: max(round(fraction * len(rows)), 1)])
    return rows.iloc[kept].reset_index(drop=True)


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3); grey files become three equal channels. Raises PipelineError when it cannot be read."""
    return _decode(path, cv2.IMREAD_COLOR_RGB)


def read_label(path: Path) -> NDArray[np.uint8]:
    """Train ids, uint8 (H, W), 255 = ignore. Raises PipelineError when the file cannot be read."""
    return _decode(path, cv2.IMREAD_GRAYSCALE)


def _decode(path: Path, flag: int) -> NDArray[np.uint8]:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror})") from None
    decoded = cv2.imdecode(data, flag) if data.size else None
    if decoded is None:
        raise PipelineError(f"{path}: cannot be decoded as an image ({data.size} bytes)")
    return decoded
