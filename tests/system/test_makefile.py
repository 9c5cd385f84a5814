"""What `make reproduce` does before the first stage."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The Makefile in a folder without `.git`, whose environment only notes what it is asked for."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("dvc", "python"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def asked_of_dvc(root: Path, path: str) -> list[str]:
    done = subprocess.run(
        [shutil.which("make"), "--silent", "reproduce"],
        cwd=root,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("dvc ")]


def test_without_a_repository_and_without_git_dvc_goes_on_without(unpacked: Path, tmp_path: Path) -> None:
    shell = tmp_path / "no git"
    shell.mkdir()
    (shell / "sh").symlink_to("/bin/sh")
    assert asked_of_dvc(unpacked, str(shell)) == ["dvc config --local core.no_scm true", "dvc repro"]


def test_in_another_repository_dvc_goes_on_without_its_commit(unpacked: Path) -> None:
    project = unpacked / "unpacked"
    shutil.copytree(unpacked, project, ignore=shutil.ignore_patterns("unpacked"))
    subprocess.run(["git", "init", "--quiet", str(unpacked)], check=True)
    assert asked_of_dvc(project, os.environ["PATH"]) == ["dvc config --local core.no_scm true", "dvc repro"]
