"""The code and parameters that a stage of dvc.yaml depends on, and whether they were edited while it ran.

DVC hashes dependencies after the command has ended, so that code edited meanwhile would be recorded as the code that
ran (DVC issue 11058).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.overlay import value_at
from pipeline.config.parse import read_yaml
from pipeline.errors import PipelineError
from pipeline.files.storage import file_digest, text_digest
from pipeline.layout import Layout

_CODE_FOLDERS = ("pipeline/", "stages/")
_FILES = (*_CODE_FOLDERS, "params")  # dependencies that people edit; the others are outputs of earlier stages


def code_digest(root: Path, stage: str) -> str:
    """Hash of the Python files among the `deps` of a stage. Raises PipelineError when dvc.yaml or one is missing."""
    digests = _digests(root, _stage(root, stage), _CODE_FOLDERS)
    return text_digest(json.dumps(digests))


@contextmanager
def unedited(root: Path, stage: str, item: Sequence[str] = ()) -> Iterator[None]:
    """Run one instance of a stage; item: the values of its matrix.

    Raises PipelineError when code or parameters of the stage differ afterwards. Its results are then moved to
    `runs/aside`, where the next run does not delete them. Only the process that DVC started compares, not its ranks.
    """
    described = _stage(root, stage)
    before = _inputs(root, described)
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            raise
    after = _inputs(root, described)
    edited = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not edited or "LOCAL_RANK" in os.environ:
        return
    aside = _set_aside(root, described, stage, item)
    raise PipelineError(
        f"{', '.join(edited)}: edited while stage `{stage}` ran, so that DVC would record the edited version as what "
        f"ran; the results are in {aside.relative_to(Layout(root).home)}. Run `dvc repro` again, which runs the "
        "stage as it is now"
    )


def _stage(root: Path, stage: str) -> dict[str, Any]:
    path = root / "dvc.yaml"
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; it lists the code that a stage depends on: restore it")
    return read_yaml(path)["stages"][stage]


def _inputs(root: Path, described: dict[str, Any]) -> dict[str, str]:
    """Digests of files, and values of parameters, by name."""
    found = _digests(root, described, _FILES)
    values = read_yaml(root / "params.yaml") if described.get("params") else {}
    for key in described.get("params", ()):
        found[f"params.yaml: {key}"] = json.dumps(value_at(values, key), sort_keys=True, default=str)
    return found


def _digests(root: Path, described: dict[str, Any], folders: tuple[str, ...]) -> dict[str, str]:
    """sha256 of every Python or YAML file among the `deps` that begin with one of `folders`, by path."""
    found = {}
    for dep in described["deps"]:
        if not dep.startswith(folders):
            continue
        listed = [root / dep] if (root / dep).suffix else sorted((root / dep).rglob("*"))
        files = [path for path in listed if path.suffix in (".py", ".yaml")]
        if not files or not all(path.is_file() for path in files):
            raise PipelineError(f"{root / 'dvc.yaml'}: deps: {dep}: no such code; correct or remove the entry")
        found |= {path.relative_to(root).as_posix(): file_digest(path) for path in files}
    return found


def _set_aside(root: Path, described: dict[str, Any], stage: str, item: Sequence[str]) -> Path:
    """Move the outputs below runs/aside, except those that persist from run to run; returns the folder."""
    name = "-".join([stage, *item, time.strftime("%Y%m%d-%H%M%S")])
    aside = Layout(root).home / "runs" / "aside" / name
    aside.mkdir(parents=True)
    matrix = dict(zip(described.get("matrix", {}), item, strict=True))
    for entry in [part for kind in ("outs", "metrics", "plots") for part in described.get(kind, ())]:
        path, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        for key, value in matrix.items():
            path = path.replace(f"${{item.{key}}}", value)
        if (root / path).exists() and not options.get("persist"):
            (aside / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(root / path, aside / path)
    return aside
