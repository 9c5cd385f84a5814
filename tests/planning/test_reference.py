"""The command `reference`, with real trainings: what they scored here is added to the records in Git."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from helpers.project import edit_yaml
from helpers.repro import make_repository

from pipeline.errors import PipelineError
from pipeline.planning.reference import add_references
from pipeline.results.reference import read_reference
from pipeline.runtime.provenance import hardware


def committed(root: Path) -> Path:
    """The project `root` with one benchmark as a repository."""
    edit_yaml(root / "params.yaml", benchmarks=["tiny-fcn"])
    make_repository(root, "all")
    return root


def test_a_training_is_added_with_its_kernels_and_threads_and_not_repeated(
    prepared_project: Path, tmp_path: Path
) -> None:
    repository = committed(shutil.copytree(prepared_project, tmp_path / "project"))
    add_references(repository, [0])
    found = read_reference(repository, "tiny-fcn")
    (training,) = found.trainings
    assert (training.seed, training.kernels, training.threads) == (0, hardware()["kernels"], hardware()["threads"])
    (weights,) = repository.rglob("last.safetensors")
    assert training.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not weights.is_relative_to(repository / "runs" / "train")  # what `dvc repro` made stays as it is
    written = weights.stat().st_mtime_ns
    add_references(repository, [0])
    assert weights.stat().st_mtime_ns == written
    assert read_reference(repository, "tiny-fcn") == found


def test_uncommitted_code_makes_no_reference(project: Path) -> None:
    repository = committed(project)
    (repository / "params.yaml").write_text((repository / "params.yaml").read_text() + "# edited\n")
    with pytest.raises(PipelineError, match="uncommitted changes"):
        add_references(repository, [0])


def test_a_repository_of_another_user_is_refused_with_that_reason(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = committed(project)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(PipelineError, match=r"dubious ownership.*safe\.directory"):
        add_references(repository, [0])
