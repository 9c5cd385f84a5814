"""A real MLflow tracking server on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.repro import ENVIRONMENT

PATIENCE = 300  # seconds until it answers, on a busy machine


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """Address of an `mlflow server` with database and artifacts in `folder`; after the block it is gone at once."""
    folder.mkdir(exist_ok=True)
    database, artifacts = f"sqlite:///{folder}/server.db", f"{folder}/artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", artifacts]
    environment = ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # six processes more, for nothing here
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_it_answers(address: str, log: Path) -> None:
    """Return when the server is up. Raises TimeoutError with its log."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310 - on this machine
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text())
