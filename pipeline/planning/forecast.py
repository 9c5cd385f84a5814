"""Which stages `dvc repro` would run, told from what DVC recorded and from the plan that the next run would make.

DVC's own status compares with the plan that the last run left behind. The plan is made anew by the first stage, so what
depends on a file of it is compared with what that file is going to be.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.parse import read_yaml
from pipeline.errors import PipelineError
from pipeline.layout import Layout

_TOLD = 3  # reasons that a line of the table has room for


@dataclass(frozen=True)
class Forecast:
    """One stage. state: it runs, it follows (runs if a stage before it writes something new), or it is up to date."""

    stage: str
    state: Literal["runs", "follows", "up to date"]
    reason: str


def forecast(root: Path, plan: Path) -> list[Forecast]:
    """All stages of `root`/dvc.yaml in order, if `plan` holds what the stage `plan` would write.

    Raises PipelineError when DVC is missing or `root` is no DVC repository.
    """
    status = json.loads(_dvc(root, "status", "--json"))
    recorded = _recorded(root)
    found: dict[str, Forecast] = {}
    for stage, upstream in _graph(root).items():
        reasons = ["has not run yet"]
        if stage in recorded:
            reasons = [*_changes(status.get(stage, []), root), *_changed_plan(recorded[stage], root, plan)]
        before = [name for name in upstream if name != "plan" and found[name].state != "up to date"]
        if reasons:
            more = f" and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
            found[stage] = Forecast(stage, "runs", ", ".join(reasons[:_TOLD]) + more)
        elif before:
            found[stage] = Forecast(stage, "follows", ", ".join(before))
        else:
            found[stage] = Forecast(stage, "up to date", "")
    return list(found.values())


def _dvc(root: Path, *arguments: str) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[0].removeprefix("ERROR: ")
        raise PipelineError(f"dvc {' '.join(arguments)}: {reason}")
    return done.stdout


def _graph(root: Path) -> dict[str, list[str]]:
    """Stages in the order in which they can run, each with those that it needs directly."""
    dot = _dvc(root, "dag", "--dot")
    needs: dict[str, list[str]] = {stage: [] for stage in re.findall(r'^"([^"]+)";$', dot, re.MULTILINE)}
    for before, after in re.findall(r'^"([^"]+)" -> "([^"]+)";$', dot, re.MULTILINE):
        needs[after].append(before)
    ordered: dict[str, list[str]] = {}
    while len(ordered) < len(needs):
        ordered |= {
            stage: needs[stage] for stage in needs if stage not in ordered and ordered.keys() >= {*needs[stage]}
        }
    return ordered


def _recorded(root: Path) -> dict[str, dict[str, str]]:
    """Digest of every dependency of every stage at its last run, by path."""
    lock = root / "dvc.lock"
    stages = read_yaml(lock)["stages"] if lock.is_file() else {}
    return {name: {dep["path"]: dep.get("md5", "") for dep in stage.get("deps", [])} for name, stage in stages.items()}


def _changes(entries: list[Any], root: Path) -> list[str]:
    """What DVC's status says of one stage in words, but for the files that the next plan decides."""
    words = []
    for entry in entries:
        if isinstance(entry, str):  # "changed command"
            words.append(entry)
            continue
        for path, how in [item for part in entry.values() for item in part.items()]:
            if isinstance(how, Mapping):
                words.append(f"{path}: {', '.join(how)}")
            elif not (_is_planned_file(path, root) and "changed deps" in entry):
                words.append(f"{path} {how}")
    return words


def _is_planned_file(path: str, root: Path) -> bool:
    return path.startswith(f"{Layout(root).plan.relative_to(root).as_posix()}/")


def _changed_plan(recorded: Mapping[str, str], root: Path, plan: Path) -> list[str]:
    """Dependencies in the plan, or the plan as a whole, that will not be what they were at the stage's last run."""
    changed = []
    for path, digest in recorded.items():
        if _is_planned_file(path, root):
            new = plan / (root / path).relative_to(Layout(root).plan)
            same = new.is_file() and hashlib.md5(new.read_bytes(), usedforsecurity=False).hexdigest() == digest
        else:
            same = root / path != Layout(root).plan or _contents(plan) == _contents(root / path)
        changed += [] if same else [f"{path} will change"]
    return changed


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
