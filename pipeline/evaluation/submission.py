"""Archives for the server that scores a split whose labels are not public: one zip per protocol.

It has one 8-bit PNG per image, of its name and original size, in the server's ids. Its bytes depend on these alone.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import LabelMap, OnPrediction
from pipeline.files.storage import replacing

_ANY_TIME = (1980, 1, 1, 0, 0, 0)  # of the files in the zip: the first that the format knows
_UNIX = 3
_READABLE = 0o644 << 16


@contextlib.contextmanager
def submission_archives(
    folder: Path, protocols: Sequence[str], ids: Sequence[int], rank: int = 0
) -> Iterator[OnPrediction]:
    """A function that adds the train ids (H, W) uint8 of one image by protocol; nothing is held in memory.

    The archives appear under their names when the block ends well. Each rank writes its own; `joined` makes them one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = np.array(ids, dtype=np.uint8)  # (K,) train id -> id in the server's format
    written: set[tuple[str, str]] = set()
    with contextlib.ExitStack() as stack:
        archives = {protocol: stack.enter_context(_archive(folder, protocol, rank)) for protocol in protocols}

        def add(image_id: str, predictions: Mapping[str, LabelMap]) -> None:
            name = f"{PurePosixPath(image_id).name}.png"
            for protocol, prediction in predictions.items():
                if (protocol, name) in written:
                    problem = "two images of the split have this name; a server cannot distinguish them"
                    raise PipelineError(f"{name}: {problem}")
                written.add((protocol, name))
                _, encoded = cv2.imencode(".png", table[prediction])
                entry = zipfile.ZipInfo(name, _ANY_TIME)
                entry.create_system, entry.external_attr = _UNIX, _READABLE
                archives[protocol].writestr(entry, encoded.tobytes())

        yield add


def joined(folder: Path, protocol: str, ranks: int) -> Path:
    """The archive of all ranks, in order of file name; the others' are removed."""
    parts = [_path(folder, protocol, rank) for rank in range(ranks)]
    if ranks > 1:
        with contextlib.ExitStack() as stack:
            whole = stack.enter_context(_archive(folder, protocol, 0))
            opened = [stack.enter_context(zipfile.ZipFile(part)) for part in parts]
            entries = [(info, part) for part in opened for info in part.infolist()]
            for info, part in sorted(entries, key=lambda entry: entry[0].filename):
                whole.writestr(info, part.read(info))
        for part in parts[1:]:
            part.unlink()
    return parts[0]


@contextlib.contextmanager
def _archive(folder: Path, protocol: str, rank: int) -> Iterator[zipfile.ZipFile]:
    """A new zip, without compression, which PNG has; in its place once the block ends well."""
    with replacing(_path(folder, protocol, rank)) as path, zipfile.ZipFile(path, "w") as archive:
        yield archive


def _path(folder: Path, protocol: str, rank: int) -> Path:
    return folder / (f"submission_{protocol}.zip" if rank == 0 else f"submission_{protocol}.{rank}.zip")
