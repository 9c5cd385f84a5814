"""Archives for the server that scores a split whose labels are not public.

One zip per protocol, holding one 8-bit PNG per image: named after the image, of its original size, with the server's
ids in place of train ids. The bytes depend on the predictions alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from pipeline.config.schema import DatasetConfig
from pipeline.datasets.spec import DatasetSpec
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import Prediction

_ANY_TIME = (1980, 1, 1, 0, 0, 0)  # of the files in the zip: the first that the format knows
_UNIX = 3
_READABLE = 0o644 << 16


def scored_split(dataset: DatasetConfig, spec: DatasetSpec) -> str:
    """The split that can be scored here: the evaluation split, or the validation split when its labels are missing."""
    unlabelled = dataset.evaluation_split in spec.unlabelled_splits
    return dataset.validation_split if unlabelled else dataset.evaluation_split


class Submission:
    """Archives that grow image by image; nothing is held in memory.

        with Submission(folder, ("single_scale", "ms_flip"), spec.submission_ids) as submission:
            submission.add(image_id, {"single_scale": labels, "ms_flip": labels})

    They appear under their names when the block ends well.
    """

    def __init__(self, folder: Path, protocols: Sequence[str], ids: Sequence[int]) -> None:
        self.files = {protocol: folder / f"submission_{protocol}.zip" for protocol in protocols}
        self._table = np.array(ids, dtype=np.uint8)  # (K,) train id -> id in the server's format
        self._archives: dict[str, zipfile.ZipFile] = {}
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        for protocol, path in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._archives[protocol] = zipfile.ZipFile(_unfinished(path), "w", zipfile.ZIP_STORED)  # PNG is compressed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for archive in self._archives.values():
            archive.close()
        for path in self.files.values():
            if kind is None:
                _unfinished(path).replace(path)
            else:
                _unfinished(path).unlink()

    def add(self, image_id: str, predictions: Mapping[str, Prediction]) -> None:
        """Train ids (H, W) uint8 of one image under every protocol."""
        name = f"{PurePosixPath(image_id).name}.png"
        if name in self._names:
            raise PipelineError(f"{name}: two images of the split have this name, so a server cannot tell them apart")
        self._names.add(name)
        for protocol, archive in self._archives.items():
            _, encoded = cv2.imencode(".png", self._table[predictions[protocol]])
            entry = zipfile.ZipInfo(name, _ANY_TIME)
            entry.create_system, entry.external_attr = _UNIX, _READABLE
            archive.writestr(entry, encoded.tobytes())


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
