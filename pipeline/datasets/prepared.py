"""The prepared form of a dataset: the table of its images, the images, and what a benchmark depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config.parse import suggestion
from pipeline.datasets.spec import DatasetSpec
from pipeline.errors import PipelineError, first_line
from pipeline.files.storage import read_json, write_json


class Prepared:
    """A folder that `prepare` wrote.

    table: one row per image, sorted by (split, id), with id, split, image and label (paths relative to `root`; label
    None for unlabelled images), height, width, histogram (K + 1 pixel counts: the classes, then ignored), image_sha256
    (of the file), label_sha256 (of the pixels). info: content of `dataset.json`. Raises PipelineError if incomplete.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = read_info(root)
        try:
            self.table: pd.DataFrame = pd.read_parquet(root / "table.parquet")
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            problem = f"missing or damaged ({first_line(error)}); {_prepare_again(root)}"
            raise PipelineError(f"{root / 'table.parquet'}: {problem}") from None

    def split(self, names: Sequence[str]) -> pd.DataFrame:
        """Rows of these splits, with full paths in `image` and `label` (or None). PipelineError for an unknown one."""
        for name in names:
            if name not in self.info["splits"]:
                hint = suggestion(name, list(self.info["splits"]))
                raise PipelineError(f"{self.info['name']}: no split {name!r}; {hint}")
        rows = self.table[self.table["split"].isin(list(names))].reset_index(drop=True)
        images = [self.root / path for path in rows["image"]]
        labels = [None if pd.isna(path) else self.root / path for path in rows["label"]]
        return rows.assign(image=pd.Series(images, dtype=object), label=pd.Series(labels, dtype=object))


def read_info(root: Path) -> dict[str, Any]:
    """`Prepared.info`. Raises PipelineError when it is missing."""
    return read_json(root / "dataset.json", _prepare_again(root))


def _prepare_again(root: Path) -> str:
    return f"run `dvc repro` to prepare {root.name}"


def subsample(rows: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """A random fraction of `rows`, at least one row, in their order; a smaller fraction is a subset of a larger one."""
    if fraction == 1.0:
        return rows
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    kept = np.sort(order[: max(round(fraction * len(rows)), 1)])
    return rows.iloc[kept].reset_index(drop=True)


def class_pixels(spec: DatasetSpec, rows: pd.DataFrame, what: str) -> NDArray[np.int64]:
    """(N, K): labelled pixels of each class in each image of `rows`, the `what` images; without the ignored ones.

    Raises PipelineError when there is none in any image: nothing could be learned from them or measured on them.
    """
    if rows.empty:
        raise PipelineError(f"{spec.name}: no {what} images; declare some in `sources.{spec.name}.images`")
    counts = np.stack(rows["histogram"])[:, : len(spec.classes)]
    if not counts.any():
        raise PipelineError(
            f"{spec.name}: every pixel of the {len(rows)} {what} images is ignored; check the labels and `label_map` "
            f"of pipeline/datasets/sources/{spec.name}.py"
        )
    return counts


def evenly_spaced(total: int, number: int) -> list[int]:
    """`number` positions from 0 to `total` - 1 at equal distances; every position if there are fewer."""
    return np.linspace(0, total - 1, min(number, total)).round().astype(int).tolist()


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3); grey files become three equal channels. Raises PipelineError if unreadable."""
    return decode_image(file_bytes(path), path)


def read_label(path: Path) -> NDArray[np.uint8]:
    """Train ids, uint8 (H, W), 255 = ignore. Raises PipelineError if unreadable."""
    return decode_image(file_bytes(path), path, cv2.IMREAD_GRAYSCALE)


def file_bytes(path: Path) -> bytes:
    """Content of a file. Raises PipelineError if unreadable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror})") from None


def decode_image(data: bytes, path: Path, flag: int = cv2.IMREAD_COLOR_RGB) -> NDArray[np.uint8]:
    """Decode the content `data` of the file `path` with OpenCV. Raises PipelineError if it is not an image."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    if decoded is None:
        raise PipelineError(f"{path}: cannot be decoded as an image ({len(data)} bytes)")
    return decoded


def write_index(spec: DatasetSpec, prepared_dir: Path, benchmark: str, path: Path, weights: str | None = None) -> None:
    """Write what `benchmark` depends on as one small file for DVC: fingerprint of the data and meaning of the labels.

    Unchanged data gives an unchanged file. weights: sha256 of the weight file that training starts from, if any.
    """
    content = {
        "benchmark": benchmark,
        "dataset": spec.name,
        "fingerprint": read_info(prepared_dir)["fingerprint"],
        "weights": weights,
        "classes": spec.classes,
        "flip_pairs": spec.flip_pairs,
        "submission_ids": spec.submission_ids,
    }
    write_json(path, content)


def read_index(path: Path) -> dict[str, Any]:
    """What `write_index` wrote. Raises PipelineError when it is missing."""
    return read_json(path, f"run `dvc repro` to prepare what {path.stem} needs")
