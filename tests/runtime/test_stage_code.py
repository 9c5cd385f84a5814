"""The code that a stage depends on: it decides what is resumed, and editing it while the stage runs is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.runtime.stage_code import code_digest, unedited


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
    before = code_digest(listed, "train")
    add_comment(listed / file)
    assert (code_digest(listed, "train") != before) == counts


def test_the_project_s_own_training_depends_on_how_ranks_exchange(project: Path) -> None:
    before = code_digest(project, "train")
    add_comment(project / "pipeline" / "runtime" / "distributed.py")
    assert code_digest(project, "train") != before


def test_without_dvc_yaml_the_error_names_it(project: Path) -> None:
    (project / "dvc.yaml").unlink()
    with pytest.raises(PipelineError, match=r"dvc.yaml: no such file; it lists the code"):
        code_digest(project, "train")


def _run(project: Path, edit: Path | None = None) -> Path:
    """An evaluation that writes its output, and meanwhile an edit; returns the output."""
    out = project / "runs" / "evaluate" / "tiny-fcn" / "0" / "metrics.json"
    with unedited(project, "evaluate-msflip", ("tiny-fcn", "0")):
        out.parent.mkdir(parents=True)
        out.write_text("{}")
        if edit is not None:
            edit.write_text(edit.read_text() + "\n# edited\n")
    return out


def test_results_stay_where_they_are_when_nothing_was_edited(project: Path) -> None:
    assert _run(project).is_file()


def test_results_of_edited_code_are_set_aside(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"^pipeline/models/memory\.py: edited while .* runs/aside/"):
        _run(project, project / "pipeline" / "models" / "memory.py")
    (kept,) = (project / "runs" / "aside").rglob("metrics.json")
    assert kept.read_text() == "{}"
    assert not (project / "runs" / "evaluate" / "tiny-fcn" / "0" / "metrics.json").exists()


def test_a_file_that_the_stage_does_not_depend_on_may_be_edited(project: Path) -> None:
    assert _run(project, project / "pipeline" / "training" / "loop.py").is_file()


def test_a_parameter_of_the_stage_counts_and_others_do_not(project: Path) -> None:
    parameters = project / "params.yaml"
    with unedited(project, "train", ("tiny-fcn", "0")):
        parameters.write_text(parameters.read_text().replace("workers: 0", "workers: 1"))
    with (
        pytest.raises(PipelineError, match=r"params\.yaml: runtime\.precision: edited"),
        unedited(project, "train", ("tiny-fcn", "0")),
    ):
        parameters.write_text(parameters.read_text().replace("precision: float32", "precision: bfloat16"))


def test_a_stage_that_fails_keeps_its_own_error(project: Path) -> None:
    memory = project / "pipeline" / "models" / "memory.py"
    with pytest.raises(ValueError, match="its own"), unedited(project, "train", ("tiny-fcn", "0")):
        add_comment(memory)
        raise ValueError("its own")
