"""A real MLflow tracking server on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from test_pipeline import ENVIRONMENT

PATIENCE = 120  # seconds until it answers


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """`mlflow server` with its database and artifacts in `folder`, once it answers. Stop it with `stop`."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    for _ in range(PATIENCE * 5):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return server
        except OSError:
            time.sleep(0.2)
    stop(server)
    raise TimeoutError((folder / "server.log").read_text())


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers at once, as a machine that fails does."""
    os.killpg(server.pid, 9)
    server.wait()
