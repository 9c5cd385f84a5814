"""Failures of real machines, caused in a separate process."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from pipeline.errors import report_user_errors

NOBODY = 65534


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status, negative for a signal, and what it wrote to stderr, progress bars left out."""

    status: int
    said: str


def ended(work: Callable[[], object], *circumstances: Callable[[], object]) -> Ended:
    """Do `work` as a stage does it, under `circumstances`, in a forked process."""
    read, write = os.pipe()

    def child() -> None:
        os.dup2(write, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.close(write)
        torch.set_num_threads(1)
        for circumstance in circumstances:
            circumstance()
        with report_user_errors():
            work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    os.close(write)
    with os.fdopen(read) as stream:
        lines = stream.read().replace("\r", "\n").splitlines()
    process.join()
    return Ended(process.exitcode, "\n".join(line for line in lines if line and "%|" not in line))


def files_up_to(size: int) -> Callable[[], None]:
    """No file may grow beyond `size` bytes: writing fails as on a full disk, with another errno."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def without_rights(root: Path) -> Callable[[], None]:
    """Work in `root`, whose folders belong to somebody else or are read-only; name its files relative to it."""

    def drop() -> None:
        os.chdir(root)
        if os.geteuid() == 0:  # permissions do not bind root
            os.seteuid(NOBODY)
            return
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o555)

    return drop


def killed_at(module: ModuleType, function: str, call: int) -> Callable[[], None]:
    """SIGKILL arrives when `function` of `module` is called for the `call`-th time."""
    return lambda: _on_call(module, function, call, lambda: os.kill(os.getpid(), signal.SIGKILL))


def interrupted_at(module: ModuleType, function: str, call: int) -> Callable[[], None]:
    """Ctrl-C arrives when `function` of `module` is called for the `call`-th time."""
    return lambda: _on_call(module, function, call, lambda: os.kill(os.getpid(), signal.SIGINT))


def _on_call(module: ModuleType, function: str, call: int, happens: Callable[[], None]) -> None:
    original, calls = getattr(module, function), iter(range(1, call))

    def counting(*arguments: object, **options: object) -> object:
        if next(calls, None) is None:
            happens()
        return original(*arguments, **options)

    setattr(module, function, counting)
