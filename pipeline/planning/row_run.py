"""Run rows through DVC: choose them in params.yaml, `dvc repro`, keep the outcome as a DVC experiment.

`dvc exp run -S benchmarks=[...]` would do the three at once, but it detaches Git's HEAD while it runs and leaves it so
when it is killed, which days of training on a shared machine have to expect. `dvc repro` never touches Git, and an
interrupted one goes on with the same command; `dvc exp save` afterwards makes the same experiment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML  # keeps the comments of params.yaml; DVC depends on it

from pipeline.errors import PipelineError
from pipeline.layout import Layout

REPRODUCE = ["dvc", "repro"]
SAVE = ["dvc", "exp", "save", "--force", "--name"]


def choose(root: Path, benchmarks: Sequence[str], seeds: Sequence[int], mode: str) -> None:
    """Make params.yaml run `benchmarks` with `seeds` in `mode`; its comments and all other keys stay."""
    path, yaml = root / "params.yaml", YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.representer.add_representer(
        type(None), lambda made, _: made.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    data = yaml.load(path)
    _replace(data, "benchmarks", benchmarks)
    _replace(data, "seeds", seeds)
    if mode == "train":
        data.setdefault("ablation", {})["mode"] = "train"
    elif (data.get("ablation") or {}).get("mode") is not None:
        data["ablation"]["mode"] = None  # each row's own: import
    yaml.dump(data, path)


def save_command(root: Path, name: str) -> list[str]:
    """Keep the workspace as the experiment `name`, with the record of weight files, which may be new to Git."""
    lock = Layout(root).weights_lock
    return [*SAVE, name, *(["--include-untracked", lock.name] if lock.is_file() else [])]


def execute(root: Path, name: str) -> None:
    """Reproduce and save. Raises PipelineError when DVC fails; what it said is on the terminal by then."""
    _run(root, REPRODUCE)
    _run(root, save_command(root, name))


def _run(root: Path, command: list[str]) -> None:
    binaries = str(Path(sys.executable).parent)  # stages call `python`, which has to be this one
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, env=environment, check=False)
    if done.returncode != 0:
        raise PipelineError(
            f"`{' '.join(command)}` exited with {done.returncode}; see above. Run the same command again to go on"
        )


def _replace(data: dict, key: str, values: Sequence[object]) -> None:
    """New entries in the list `data[key]`, in its own style; made when absent."""
    if key in data:
        data[key][:] = list(values)
    else:
        data[key] = list(values)
