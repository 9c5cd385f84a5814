"""A Git and DVC repository in which `dvc repro` takes seconds: two tiny benchmarks on a few of the digits' scenes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from helpers.project import RUNTIME as TINY_RUNTIME
from helpers.project import edit_yaml, make_project
from helpers.repro import ENVIRONMENT, make_repository

RUNTIME = TINY_RUNTIME | {"evaluation_batch": 1, "log_every": 1, "save_every": 2}
SCHEDULE = {"epochs": 2, "batch_size": 4, "validate_every": 1}


def short_repository(root: Path, epochs: int = 2, mlflow: bool = False) -> Path:
    """Lay it out at `root` and commit it; nothing is run. The scenes per split are 24, 4 and 8."""
    make_project(root)
    digits = root / "pipeline" / "datasets" / "sources" / "digits.py"
    whole = 'SCENES = {"train": 1200, "val": 200, "test": 200}'
    code = digits.read_text()
    assert whole in code
    digits.write_text(code.replace(whole, 'SCENES = {"train": 24, "val": 4, "test": 8}'))
    for benchmark in ("tiny-fcn", "tiny-fcn-mcibi"):
        edit_yaml(root / "params" / f"{benchmark}.yaml", schedule=SCHEDULE | {"epochs": epochs})
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"mlflow": mlflow})
    make_repository(root, "a short project")
    return root


def started(root: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """`command` in `root`, running in a process group of its own; stdout and stderr together can be read."""
    return subprocess.Popen(
        command,
        cwd=root,
        env=ENVIRONMENT | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
