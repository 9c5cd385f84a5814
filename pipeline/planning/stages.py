"""Which stages `dvc repro` would run: DVC's own status, and the plan that the next run would make.

DVC compares with the plan that the last run left behind. Since the first stage makes a new one, what depends on a file
of the plan is compared with what that file is going to be.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.config.parse import read_yaml
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.runtime.child import run_child

_SHOWN = 3  # reasons per stage


def pending_stages(root: Path, plan: Path) -> dict[str, str]:
    """Of every stage of dvc.yaml: `runs: WHY`, `follows: STAGES` (runs if their outputs change) or `up to date`.

    plan: a folder that holds what the stage `plan` would write. Raises PipelineError outside a DVC repository.
    """
    status = json.loads(dvc(root, "status", "--json"))
    lock = root / "dvc.lock"
    recorded = read_yaml(lock)["stages"] if lock.is_file() else {}
    found: dict[str, str] = {}
    for stage, upstream in stage_graph(root).items():
        if stage in recorded:
            reasons = [*_changes(status.get(stage, []), root), *_changed_plan(recorded[stage]["deps"], root, plan)]
        else:
            reasons = ["has not run yet"]
        before = [name for name in upstream if name != "plan" and found[name] != "up to date"]
        if reasons:
            more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
            found[stage] = f"runs: {', '.join(reasons[:_SHOWN])}{more}"
        else:
            found[stage] = f"follows: {', '.join(before)}" if before else "up to date"
    return found


def dvc(root: Path, *arguments: str) -> str:
    """What `dvc ARGUMENTS` prints in `root`. Raises PipelineError with its first line of complaint."""
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().partition("\n")[0].removeprefix("ERROR: ")
        if "not a git repository" in reason:
            reason += (
                "; run `make reproduce` once, which lets DVC go on without Git, or `git init` and commit all files"
            )
        raise PipelineError(f"dvc {' '.join(arguments)}: {reason}")
    return done.stdout


def run_dvc(root: Path, *arguments: str) -> None:
    """`dvc ARGUMENTS` in the foreground. Raises PipelineError when it fails; what it says was seen already."""
    status = run_child([sys.executable, "-m", "dvc", *arguments], dvc_environment(), root)
    if status != 0:
        asked = " ".join(word for word in arguments[:2] if word.isalpha())
        raise PipelineError(f"`dvc {asked}` exited with {status}, see above; run the same command to resume")


def stage_graph(root: Path) -> dict[str, list[str]]:
    """Stages in an order in which they can run, each with those that it needs directly."""
    dot = dvc(root, "dag", "--dot")
    needs: dict[str, list[str]] = {stage: [] for stage in re.findall(r'^"([^"]+)";$', dot, re.MULTILINE)}
    for before, after in re.findall(r'^"([^"]+)" -> "([^"]+)";$', dot, re.MULTILINE):
        needs[after].append(before)
    return {stage: needs[stage] for stage in TopologicalSorter(needs).static_order()}


def dvc_environment() -> dict[str, str]:
    """For processes that run stages: these call `python`, which has to be this one."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _changes(entries: list[Any], root: Path) -> Iterator[str]:
    """What DVC's status says of one stage in words, except about files of the plan."""
    for entry in entries:
        if isinstance(entry, str):  # "changed command"
            yield entry
            continue
        for path, how in [item for part in entry.values() for item in part.items()]:
            if isinstance(how, Mapping):
                yield f"{path}: {', '.join(how)}"
            elif not (_in_plan(path, root) and "changed deps" in entry):
                # In a fresh clone nothing was deleted: dvc.lock is in Git, its outputs are not.
                yield f"{path} {'not there' if how == 'deleted' else how}"


def _in_plan(path: str, root: Path) -> bool:
    return (root / path).is_relative_to(Layout(root).plan) and root / path != Layout(root).plan


def _changed_plan(deps: list[dict[str, str]], root: Path, plan: Path) -> Iterator[str]:
    """Dependencies in the plan, or the plan as a whole, that will differ from the stage's last run."""
    old_plan = Layout(root).plan
    for dep in deps:
        path = root / dep["path"]
        if _in_plan(dep["path"], root):
            new = plan / path.relative_to(old_plan)
            digest = hashlib.md5(new.read_bytes(), usedforsecurity=False).hexdigest() if new.is_file() else None
            same = digest == dep.get("md5")
        else:
            same = path != old_plan or _contents(plan) == _contents(old_plan)
        if not same:
            yield f"{dep['path']} will change"


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
