"""Open a weight file without executing anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import PipelineError, first_line

StateDict = dict[str, Tensor]


def read_state_dict(path: Path) -> StateDict:
    """Weights in `path`: `.safetensors`, or a torch file holding tensors only.

    A training checkpoint is unwrapped (`model`, else `state_dict`, else the object itself) and a `module.` prefix is
    stripped. Raises PipelineError when the file is missing or holds anything else.
    """
    if not path.is_file():
        raise PipelineError(f"{path}: no such weight file; download it there or correct the path")
    data = load_plain(path, "weights; expected .safetensors or a torch file of plain tensors")
    if isinstance(data, dict):
        data = data.get("model", data.get("state_dict", data))
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise PipelineError(f"{path}: expected a mapping from names to tensors, found {type(data).__name__}")
    return {str(key).removeprefix("module."): value for key, value in data.items()}


def load_plain(path: Path, expected: str) -> Any:
    """What `path` (`.safetensors`, or of `torch.save`) holds, on the CPU: tensors and plain Python types only.

    Raises PipelineError "not readable as `expected`" for anything else, without running what is in it.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can make torch's reader fail in any way
        raise PipelineError(f"{path}: not readable as {expected} ({first_line(error)})") from error
