"""Run commands in a project as a person would, and see which stages ran."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
    "DVC_NO_ANALYTICS": "1",
}
ENVIRONMENT.pop("MLFLOW_TRACKING_URI", None)


def run(root: Path, *command: str, status: int = 0) -> str:
    """Output of `command` in `root`, which must exit with `status`."""
    done = subprocess.run(
        command, cwd=root, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == status, f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}"
    return done.stdout


def commit(root: Path, message: str) -> None:
    """Commit everything at `root`."""
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", message)


def make_repository(root: Path, message: str) -> None:
    """A Git and DVC repository at `root`, with everything there in its first commit."""
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    commit(root, message)


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)
