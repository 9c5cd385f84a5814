"""Weight files of unknown origin: nothing in them is run, and what is not plain tensors is refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoints.read import read_state_dict
from pipeline.errors import PipelineError


class Code:
    """Unpickling it makes a file in the current folder."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


WRITTEN: dict[str, Callable[[Path], object]] = {
    "empty.pth": Path.touch,
    "empty.safetensors": Path.touch,
    "rubbish.pth": lambda path: path.write_bytes(b"rubbish"),
    "rubbish.safetensors": lambda path: path.write_bytes(b"rubbish"),
    "pickle.pth": lambda path: path.write_bytes(pickle.dumps({"model": Code()}, protocol=2)),
    "code.pth": lambda path: torch.save({"model": Code()}, path),
    "module.pth": lambda path: torch.save({"model": torch.nn.Linear(1, 1)}, path),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_not_plain_tensors_is_refused_and_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WRITTEN[name](tmp_path / name)
    with pytest.raises(PipelineError, match=f"{name}: not readable as weights; expected .* plain tensors"):
        read_state_dict(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
