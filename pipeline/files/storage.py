"""Write files so that a full disk or a kill never leaves half of one under its final name."""

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
    """A stream whose content replaces `path` (its folder is created) when the block ends without an error.

    After an error an older file stays as it was. The bytes are flushed to disk before the rename. Raises OSError that
    names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, ".part") as temporary, temporary.open("wb") as stream:  # no reader looks for this ending
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """A path in the same folder, by default with the same suffix, renamed to `path` if the block ends without error."""
    # The name is shortened, as that of `path` may be as long as the file system allows; the digest distinguishes files
    # that start alike. It is the same in every run, so that what a kill left behind is replaced.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    temporary = path.with_name(f"{path.name[:30]}.{digest}{suffix or f'.part{path.suffix}'}")
    try:
        with with_path(path):
            yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def with_path(path: Path) -> Iterator[None]:
    """Add `path` to an OSError of the block that names no file (such as one from writing to an open stream)."""
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
    """`pixels` (H, W) or BGR (H, W, 3) as PNG; `options` are pairs of an OpenCV IMWRITE_PNG_* flag and its value.

    Raises OSError, unlike `cv2.imwrite`, which ignores a full disk.
    """
    _, encoded = cv2.imencode(".png", pixels, options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with with_path(path):
        path.write_bytes(encoded.tobytes())


def file_digest(path: Path) -> str:
    """sha256 in hex of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """sha256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def cached_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when the file is missing or damaged: for caches, which can be rebuilt."""
    try:
        return read_json(path, "")
    except PipelineError:
        return {}
