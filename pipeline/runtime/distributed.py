"""Several processes ("ranks") that train or evaluate one model together, one per device, on PyTorch's engine.

Nothing here does anything in a single process, so callers need not ask. What ranks exchange are sums, never averages of
averages: a result does not depend on how many they are.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.schema import RuntimeConfig

_TIMEOUT = datetime.timedelta(minutes=30)  # for the slowest rank, for example at a validation


@dataclass(frozen=True)
class Ranks:
    """Which process this is, among how many."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """Whether this process logs and writes files."""
        return self.rank == 0


def ranks() -> Ranks:
    """This process and their number; a single process is rank 0 of 1."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks(0, 1)


def started_as_rank() -> bool:
    """Whether torchrun (or a scheduler that sets the same variables) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def arithmetic(runtime: RuntimeConfig) -> str:
    """What changes a training's numbers besides its configuration: precision, compilation, how the batch is divided.

    Losses, gradients and the memory are those of one device, but batch norm sees parts (all ranks of a GPU run
    together, otherwise each rank and part separately), and dropout is drawn per rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    described = [runtime.precision]
    if runtime.compile:
        described.append("compiled")
    if world * runtime.accumulate > 1:
        described.append(f"{world} devices, {runtime.accumulate} parts on each")
    return ", ".join(described)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other ranks while the block runs; a single process just runs it.

    GPU tensors travel by NCCL, those in main memory by gloo.
    """
    if not started_as_rank():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    # On error, skip `destroy_process_group`: other ranks may be blocked in a collective.
    yield
    dist.destroy_process_group()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all ranks, in place."""
    if ranks().world > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def gather_on_main(value: Any) -> list[Any] | None:
    """Every rank's `value` in order of rank, on the main rank; None on the others. `value` is pickled."""
    here = ranks()
    if here.world == 1:
        return [value]
    gathered: list[Any] | None = [None] * here.world if here.is_main else None
    dist.gather_object(value, gathered)
    return gathered


def from_main(value: Any) -> Any:
    """The main rank's `value`, on every rank."""
    if ranks().world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` as the ranks run it together: gradients are averaged, on GPUs batch norm sees the global batch."""
    if ranks().world == 1:
        return model
    with warnings.catch_warnings():  # its successor `forward_sync_buffers` is unknown to torch before 2.13
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )


def with_synchronised_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` whose batch norm pools over all ranks. PyTorch can do this on GPUs only: elsewhere it stays local."""
    if ranks().world == 1 or device.type != "cuda":
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def copy_buffers_from_main(model: nn.Module) -> None:
    """Give every rank the main rank's buffers: where batch norm is local, its running statistics differ by rank."""
    if ranks().world > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
