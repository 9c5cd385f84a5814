"""The key that decides whether a saved training may be resumed: it depends on the code that DVC trains again for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.training.state import code_digest


def add_comment(path: Path) -> None:
    assert path.is_file()
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")


@pytest.fixture
def listed(project: Path) -> Path:
    """A project whose stage `train` depends on one file, one folder and data."""
    deps = ["runs/plan/train/x.yaml", "pipeline/runtime/distributed.py", "pipeline/models"]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"deps": deps}}}), encoding="utf-8")
    return project


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("pipeline/runtime/distributed.py", True),
        ("pipeline/models/encoders/resnest101.py", True),
        ("pipeline/runtime/launch.py", False),
        ("pipeline/datasets/sources/lip.py", False),
    ],
)
def test_the_code_that_the_stage_lists_counts(listed: Path, file: str, counts: bool) -> None:
    before = code_digest(listed)
    add_comment(listed / file)
    assert (code_digest(listed) != before) == counts


def test_the_project_s_own_training_depends_on_how_ranks_exchange(project: Path) -> None:
    before = code_digest(project)
    add_comment(project / "pipeline" / "runtime" / "distributed.py")
    assert code_digest(project) != before


def test_without_dvc_yaml_the_error_names_it(project: Path) -> None:
    (project / "dvc.yaml").unlink()
    with pytest.raises(PipelineError, match=r"dvc.yaml: no such file; its stage `train` lists the code"):
        code_digest(project)
