"""Open a weight file without executing anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import PipelineError

StateDict = dict[str, Tensor]


def read_state_dict(path: Path) -> StateDict:
    """Weights in `path`: `.safetensors`, or a torch file holding tensors only.

    A training checkpoint is unwrapped (`model`, else `state_dict`, else the object itself) and a `module.` prefix is
    stripped (CHECKPOINTS section 2). Raises PipelineError when the file is missing or holds anything else.
    """
    if not path.is_file():
        raise PipelineError(f"{path}: no such weight file; download it there or correct the path")
    try:
        data = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise PipelineError(
            f"{path}: not readable as weights ({str(error).splitlines()[0]}); expected .safetensors or a torch file of "
            "plain tensors"
        ) from error
    if isinstance(data, dict):
        data = data.get("model", data.get("state_dict", data))
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise PipelineError(f"{path}: expected a mapping from names to tensors, found {type(data).__name__}")
    return {str(key).removeprefix("module."): value for key, value in data.items()}
