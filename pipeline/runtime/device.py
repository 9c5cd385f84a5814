"""Where and how arithmetic runs: device, precision, seeds, worker processes."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str, key: str = "runtime.device") -> torch.device:
    """`auto` is the GPU when there is one, each rank's own when there are several ranks. key: named in errors.

    Raises PipelineError for a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PipelineError(f"{key}: unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PipelineError(f"{key}: {name} does not exist ({torch.cuda.device_count()} GPUs found); use auto or cpu")
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Mixed precision context; a null context for float32 and tf32."""
    if precision not in _DTYPES:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and every GPU). Loader workers seed each sample separately."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party code may draw from the global generator
    torch.manual_seed(seed)


def set_kernels(device: torch.device, precision: str) -> None:
    """Bit-reproducible kernels on the CPU; on a GPU the fastest ones, since bilinear backward has no exact one.

    precision: PyTorch's own default computes convolutions of float32 in TF32; here only `tf32` does.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Deterministic mode also clears every new tensor, a tenth of a small step; nothing here reads one before writing.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = device.type == "cuda"


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 inside the block, which may also decorate a function."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def worker_count(requested: int | None) -> int:
    """Data-loading processes of this process: `requested`, or its share of the cores but the one that trains, up to 8.

    The ranks on a machine share its cores equally.
    """
    if requested is not None:
        return requested
    cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(cores - 1, 0), 8)


def available_cores() -> int:
    """Cores this process may use: a scheduler may grant fewer than the machine has; unknown on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
