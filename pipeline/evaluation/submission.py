"""Archives for the server that scores a split whose labels are not public.

One zip per protocol, holding one 8-bit PNG per image: named after the image, of its original size, with the server's
ids in place of train ids. The bytes depend on the predictions alone.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import Prediction

_ANY_TIME = (1980, 1, 1, 0, 0, 0)  # of the files in the zip: the first that the format knows
_UNIX = 3
_READABLE = 0o644 << 16


class Submission:
    """Archives that grow image by image; nothing is held in memory.

        with Submission(folder, ("single_scale", "ms_flip"), spec.submission_ids) as submission:
            submission.add(image_id, {"single_scale": labels, "ms_flip": labels})

    They appear under their names when the block ends well. Each rank writes its own; `joined` makes them one.
    """

    def __init__(self, folder: Path, protocols: Sequence[str], ids: Sequence[int], rank: int = 0) -> None:
        names = {protocol: _name(protocol, rank) for protocol in protocols}
        self.files = {protocol: folder / name for protocol, name in names.items()}
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


def joined(folder: Path, protocol: str, ranks: int) -> Path:
    """The archive of all ranks, in order of file name; the others' are removed."""
    parts = [folder / _name(protocol, rank) for rank in range(ranks)]
    if ranks > 1:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(zipfile.ZipFile(part)) for part in parts]
            entries = sorted(((info, part) for part in opened for info in part.infolist()), key=lambda e: e[0].filename)
            whole = stack.enter_context(zipfile.ZipFile(_unfinished(parts[0]), "w", zipfile.ZIP_STORED))
            for info, part in entries:
                whole.writestr(info, part.read(info))
        _unfinished(parts[0]).replace(parts[0])
        for part in parts[1:]:
            part.unlink()
    return parts[0]


def _name(protocol: str, rank: int) -> str:
    return f"submission_{protocol}.zip" if rank == 0 else f"submission_{protocol}.{rank}.zip"


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
