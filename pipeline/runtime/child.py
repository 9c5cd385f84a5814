"""Run another program in the foreground, so that an interrupt lets it save and end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_child(command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> int:
    """Exit status of `command`, negative for a signal. On KeyboardInterrupt all its processes get one SIGINT, and its
    end is awaited; `subprocess.run` would kill it after a quarter of a second.
    """
    # Its own session: an interrupt of the terminal reaches its processes only from here, and so does one by `kill`.
    process = subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        interrupt(process)
        process.wait()
        raise


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """SIGINT for all processes of the session that `process` leads, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
