"""Write files so that a full disk, or a kill at any moment, never leaves half of one under its name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream to what becomes `path`, replacing it, when the block ends well; its folder is made.

    Otherwise an older file of that name stays as it was, and nothing is left of the new one. The bytes are on the disk
    before the name is. Raises OSError with the name `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path)
    try:
        with naming(path), temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        if temporary.is_file():
            temporary.unlink()
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path in the same folder, with the same ending, that becomes `path` when the block ends without an error.

    An OSError of the block that names no file gets the name `path`.
    """
    temporary = _unfinished(path, path.suffix)
    try:
        with naming(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _unfinished(path: Path, ending: str = "") -> Path:
    """What `path` is called until it is complete: START.DIGEST.part, and `ending`.

    It does not grow with the name of `path`, which may be as long as the file system allows. The digest of that name
    keeps files apart that start alike; it is the same the next time, so that what a kill left behind is replaced.
    """
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f"{path.name[:30]}.{digest}.part{ending}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block that names no file, as those of writing to an open one."""
    try:
        yield
    except Exception as error:
        # torch.save turns an error of the stream into a RuntimeError about its own format.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError) and cause.errno is not None and cause.filename is None:
            raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error
        raise


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in `path`. Raises PipelineError, ending in `remedy`, when it is missing or not a JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file; {remedy}") from None
    except ValueError as error:
        raise PipelineError(f"{path}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise PipelineError(f"{path}: expected a JSON object, found {type(data).__name__}; {remedy}")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` atomically."""
    with new_file(path) as stream:
        stream.write((json.dumps(data, indent=2) + "\n").encode())


def write_png(path: Path, pixels: NDArray[np.uint8], options: Sequence[int] = ()) -> None:
    """`pixels` (H, W) or BGR (H, W, 3) as PNG. Raises OSError; `cv2.imwrite` is silent when a disk is full.

    options: pairs of an OpenCV IMWRITE_PNG_* flag and its value.
    """
    _, encoded = cv2.imencode(".png", pixels, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_bytes(encoded.tobytes())


def file_digest(path: Path) -> str:
    """sha256 in hex of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """sha256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def cached_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when the file is missing or was cut off by a kill: these files are only caches."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
