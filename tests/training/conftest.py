"""A project ready to train."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.project import RUNTIME, edit_yaml


@pytest.fixture
def trainable(prepared_project: Path, tmp_path: Path) -> Path:
    """Its training saves its state every third iteration."""
    root = tmp_path / "trainable"
    shutil.copytree(prepared_project, root)
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"log_every": 5, "save_every": 3})
    return root
