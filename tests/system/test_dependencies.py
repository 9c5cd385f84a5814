"""The `deps` of each stage in dvc.yaml are what the stage imports, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.imports import import_closure
from helpers.project import ROOT

# Code that cannot move a result: it says what is wrong, names files, writes them whole, watches, or starts processes.
# The configuration acts through the resolved benchmark in runs/plan, which `plan` writes from it.
WITHOUT_INFLUENCE = (
    *("pipeline/__init__.py", "stages/__init__.py", "pipeline/errors.py", "pipeline/layout.py"),
    *("pipeline/files/__init__.py", "pipeline/files/storage.py", "pipeline/files/locks.py"),
    *("pipeline/runtime/__init__.py", "pipeline/runtime/child.py", "pipeline/runtime/launch.py"),
    *("pipeline/runtime/provenance.py", "pipeline/runtime/stage_code.py"),
    *("pipeline/config/", "pipeline/tracking/"),
)
# Folders whose modules are loaded by name: a new file there is found without an import.
BY_NAME = ("pipeline/datasets/sources/", "pipeline/models/encoders/")

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def declared(stage: str) -> set[str]:
    """Python files among the dependencies of a stage."""
    files: set[Path] = set()
    for dependency in STAGES[stage]["deps"]:
        path = ROOT / dependency
        if dependency.startswith(("pipeline", "stages")):
            files |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(stage: str) -> None:
    script = f"stages/{stage.replace('-', '_')}.py"
    needed = {path for path in import_closure(script, stop=WITHOUT_INFLUENCE) if not path.startswith(BY_NAME)}
    found = {path for path in declared(stage) if not path.startswith(BY_NAME)}
    assert needed <= found
    assert {path for path in found if not path.startswith(WITHOUT_INFLUENCE)} <= needed


def test_a_changed_default_is_resolved_again() -> None:
    assert "pipeline/config" in STAGES["plan"]["deps"]


def test_the_code_of_a_dataset_retrains_nothing() -> None:
    for stage in ("train", "evaluate-msflip"):
        assert not any(path.startswith("pipeline/datasets/sources/") for path in declared(stage))
