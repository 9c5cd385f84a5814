"""A project with two runs, and folders for pictures and predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.pictures import BENCHMARK
from helpers.trained_run import write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two runs of the small benchmark."""
    root = tmp_path_factory.mktemp("project")
    for seed in (0, 1):
        write_run(root, BENCHMARK, seed)
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
