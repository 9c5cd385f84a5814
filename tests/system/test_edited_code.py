"""Code that is edited while its stage runs, in a real DVC repository: DVC would record it as the code that ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.repro import commit, run, stages_run
from helpers.short_project import short_repository

EDIT = """
        edited = ROOT / "pipeline" / "datasets" / "download.py"
        if "# edited" not in edited.read_text():
            edited.write_text(edited.read_text() + "# edited")
"""


def recorded(root: Path) -> list[str]:
    return list(yaml.safe_load((root / "dvc.lock").read_text())["stages"])


@pytest.mark.slow
def test_the_stage_fails_is_not_recorded_and_runs_again(tmp_path: Path) -> None:
    root = short_repository(tmp_path / "project")
    script = root / "stages" / "download.py"
    script.write_text(script.read_text() + EDIT)
    commit(root, "a stage during which somebody edits its code")
    output = run(root, "dvc", "repro", "download", status=255)
    assert "error: pipeline/datasets/download.py: edited while stage `download` ran" in output
    assert recorded(root) == ["plan"]
    assert [path.name for path in (root / "runs" / "aside").rglob("digits.json")] == ["digits.json"]
    assert not (root / "data" / "sources").exists()
    assert "download" in stages_run(run(root, "dvc", "repro", "download"))
    assert recorded(root) == ["plan", "download"]
