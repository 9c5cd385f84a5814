"""The files that a prediction leaves: label maps and, on request, overlays and probabilities.

    labels/NAME.png          indexed PNG, values are class numbers, colours the dataset's palette
    overlays/NAME.png        the picture under half-transparent colours
    probabilities/NAME.npy   (K, H, W) float16; np.load(path, mmap_mode="r") reads a part of it

NAME is the picture's path below its folder, with its ending: a.jpg and a.png do not meet. A file appears under its name
when it is complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.spec import colourise
from pipeline.errors import PipelineError
from pipeline.files.storage import replacing
from pipeline.predict.pictures import Picture

Kind = Literal["labels", "overlays", "probabilities"]
Palette = Sequence[tuple[int, int, int]]

ENDINGS: dict[Kind, str] = {"labels": ".png", "overlays": ".png", "probabilities": ".npy"}


def output_path(out: Path, kind: Kind, picture: Picture) -> Path:
    """Where the output of one kind of a picture goes."""
    return out / kind / f"{picture.name}{ENDINGS[kind]}"


def require_names(out: Path, kinds: Sequence[Kind], picture: Picture) -> None:
    """Make the folders of a picture's outputs. Raises PipelineError when the file system takes no names that long.

    How long a name may be depends on the file system, which says so only when it is asked for such a file.
    """
    for path in (output_path(out, kind, picture) for kind in kinds):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.stat()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise PipelineError(
                f"{picture.file}: its name is too long for that of an output, {path}; rename the picture"
            ) from None


def is_done(out: Path, kinds: Sequence[Kind], picture: Picture) -> bool:
    """Whether all outputs are there and none is older than the picture."""
    changed = picture.file.stat().st_mtime_ns
    paths = [output_path(out, kind, picture) for kind in kinds]
    return all(path.is_file() and path.stat().st_mtime_ns >= changed for path in paths)


def write_labels(path: Path, labels: NDArray[np.uint8], palette: Palette) -> None:
    """labels: (H, W) uint8."""
    indexed = Image.fromarray(labels)
    indexed.putpalette([channel for colour in palette for channel in colour])
    _save(indexed, path)


def write_overlay(path: Path, image: NDArray[np.uint8], labels: NDArray[np.uint8], palette: Palette) -> None:
    """image: RGB uint8 (H, W, 3); labels: (H, W) uint8."""
    mixed = image // 2 + colourise(labels, palette) // 2
    _save(Image.fromarray(mixed), path)


@contextmanager
def new_array(path: Path, shape: tuple[int, int, int]) -> Iterator[NDArray[np.float16]]:
    """An array on the disk to fill: it need not fit into memory, and becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        _reserve(temporary)
        yield array
        array.flush()


def _reserve(path: Path) -> None:
    """Have the disk set aside all of a file's blocks, or raise OSError.

    When a mapped file lacks one and the disk is full, the process is killed without a word (SIGBUS). macOS has no such
    call.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
