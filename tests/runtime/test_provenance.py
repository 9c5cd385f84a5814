"""What is noted about commit, machine and libraries."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch
from helpers.repro import commit, run

from pipeline.runtime.provenance import git_state, hardware, libraries, loaded_code, why_no_commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run(tmp_path, "git", "init")
    (tmp_path / "code.py").write_text("answer = 42\n")
    (tmp_path / "dvc.lock").write_text("{}\n")
    commit(tmp_path, "first")
    return tmp_path


def test_committed_code_is_clean(repository: Path) -> None:
    commit, dirty = git_state(repository)
    assert commit is not None
    assert len(commit) == 40
    assert not dirty


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_edited_or_new_code_is_dirty(repository: Path, name: str) -> None:
    (repository / name).write_text("answer = 43\n")
    assert git_state(repository)[1]


def test_what_the_pipeline_writes_itself_is_not_dirty(repository: Path) -> None:
    (repository / "dvc.lock").write_text("stages: {}\n")
    (repository / "runs").mkdir()
    (repository / "runs" / "metrics.json").write_text("{}\n")
    assert not git_state(repository)[1]


def test_a_process_keeps_the_commit_that_it_began_with(repository: Path) -> None:
    begun = loaded_code(repository)
    (repository / "code.py").write_text("changed\n")
    commit(repository, "later")
    assert loaded_code(repository) == begun != git_state(repository)


def test_without_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) == (None, False)


def test_the_commit_of_a_repository_around_the_project_is_not_its_own(repository: Path) -> None:
    (repository / "unpacked").mkdir()
    (repository / "unpacked" / "dvc.yaml").write_text("stages: {}\n")
    assert git_state(repository / "unpacked") == (None, False)
    assert f"{repository} is not the project's; run `git init`" in why_no_commit(repository / "unpacked")
    run(repository, "git", "add", ".")  # now it is a part of that repository
    assert git_state(repository / "unpacked")[0] == git_state(repository)[0] is not None


def test_a_folder_of_the_project_has_its_commit(repository: Path) -> None:
    (repository / "dvc.yaml").write_text("stages: {}\n")
    (repository / "runs" / "reference").mkdir(parents=True)
    assert git_state(repository / "runs" / "reference")[0] == git_state(repository)[0] is not None


def test_the_reason_for_no_commit_is_printed_once_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded_code(tmp_path) == loaded_code(tmp_path) == (None, False)
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a git repository" in line
    assert "`git init` and commit" in line


def test_a_repository_without_a_commit_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "git", "init")
    assert loaded_code(tmp_path) == (None, False)
    assert "; commit all files" in capsys.readouterr().err


def test_a_repository_of_another_user_names_the_command_that_trusts_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert loaded_code(repository) == (None, False)
    error = capsys.readouterr().err
    assert "dubious ownership" in error
    assert f"`git config --global --add safe.directory {repository}`" in error


def test_hardware_names_the_machine() -> None:
    machine = hardware()
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["threads"] == torch.get_num_threads()
    assert machine["memory_bytes"] > 2**20


def test_libraries_give_installed_versions() -> None:
    assert libraries()["torch"] == importlib.metadata.version("torch")
