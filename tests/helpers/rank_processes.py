"""Run a function as several gloo processes on this machine and collect what each returns."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from helpers.tracking_server import free_port
from pipeline.runtime.distributed import process_group


def on_ranks(world: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """function(rank, *arguments) in `world` processes; what it returns, by rank."""
    # Forked, so that they need not import torch again.
    mp.start_processes(_run, (world, free_port(), folder, function, arguments), nprocs=world, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _run(rank: int, world: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        torch.save(function(rank, *arguments), folder / f"{rank}.pt")
