"""Let one process at a time work on something; the system releases the lock of a process that dies."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import PipelineError


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, waiting for the process that has it.

    The lock file is the hidden sibling `.<name>.lock`, so that `folder` itself may be replaced meanwhile.
    """
    with awaited(folder.with_name(f".{folder.name}.lock"), str(folder)):
        yield


@contextlib.contextmanager
def awaited(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, waiting for the process that has it. what: named while waiting."""
    with claimed(path) as mine:
        if mine:
            yield
            return
    print(f"{what}: another process works here; waiting for it", file=sys.stderr, flush=True)
    with FileLock(path):
        yield


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`. Raises PipelineError that names the process which does `what` already."""
    holder = path.with_suffix(".pid")
    with claimed(path) as mine:
        if not mine:
            by = f"process {holder.read_text(encoding='utf-8')}" if holder.exists() else "another process"
            raise PipelineError(f"{what}: {by} does this already; stop it, then run the same command again")
        holder.write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")
        yield


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """True when no other process holds the lock file `path`, which this one then holds; otherwise False at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with contextlib.suppress(Timeout):
        lock.acquire(blocking=False)
    try:
        yield lock.is_locked
    finally:
        lock.release()
