"""A project ready to train."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.project import RUNTIME, copy_prepared, edit_yaml


@pytest.fixture
def trainable(prepared_project: Path, tmp_path: Path) -> Path:
    """Its training saves its state every third iteration."""
    root = copy_prepared(prepared_project, tmp_path / "trainable")
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"log_every": 5, "save_every": 3})
    return root
