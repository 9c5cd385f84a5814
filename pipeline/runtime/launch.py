"""Start a stage once per device with `torchrun`, when params.yaml asks for several devices."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.config.schema import RuntimeConfig
from pipeline.errors import PipelineError
from pipeline.files.locks import alone
from pipeline.layout import Layout
from pipeline.runtime.child import run_child
from pipeline.runtime.device import available_cores
from pipeline.runtime.distributed import started_as_rank

_PORT = 29400  # on the node where the ranks of several nodes meet


def relaunch_with_torchrun(runtime: RuntimeConfig, module: str, arguments: Sequence[str]) -> bool:
    """Run `python -m module arguments` on every device; False when this process should do the work itself.

    That is the case with one device on one node, and in the ranks themselves, whoever started them. With several nodes
    the stage must run inside a Slurm allocation, where `srun` starts one torchrun per node. Raises PipelineError when a
    rank fails; the other ranks are stopped, and the failed one has printed its own message.
    """
    if started_as_rank() or runtime.devices * runtime.nodes == 1:
        return False
    command = torchrun_command(runtime, module, arguments, os.environ)
    threads = max(available_cores() // runtime.devices, 1)
    status = run_child(command, {"OMP_NUM_THREADS": str(threads), **os.environ})
    if status in (-2, 130):
        raise KeyboardInterrupt
    if status != 0:
        raise PipelineError(
            f"{module}: one of {runtime.devices * runtime.nodes} processes failed, see its message above"
        )
    return True


@contextlib.contextmanager
def only_training(root: Path, benchmark: str, seed: int) -> Iterator[None]:
    """Raise PipelineError when another process trains this below `root`, such as one that a killed `dvc repro` left.

    Not seen are the copies that DVC makes for experiments. Ranks rely on the process that started them.
    """
    if started_as_rank():
        yield
        return
    with alone(Layout(root).training_lock(benchmark, seed), f"training {benchmark}, seed {seed}"):
        yield


def torchrun_command(
    runtime: RuntimeConfig, module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> list[str]:
    """The command that starts all ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={runtime.devices}"]
    work = ["-m", module, *arguments]
    if runtime.nodes == 1:
        return [*torchrun, "--standalone", *work]
    torchrun += [f"--nnodes={runtime.nodes}", "--rdzv-backend=c10d"]
    if "SLURM_JOB_ID" not in environment:
        shown = shlex.join([*torchrun, f"--rdzv-endpoint=FIRST_NODE:{_PORT}", *work])
        raise PipelineError(
            f"params.yaml: runtime.nodes: {runtime.nodes} nodes, but this process runs outside a Slurm allocation. "
            f"Submit `dvc repro` with sbatch --nodes={runtime.nodes}, or run on every node: {shown}"
        )
    meeting = f"{environment.get('SLURMD_NODENAME', 'localhost')}:{_PORT}"
    return [
        *("srun", "--quit-on-interrupt", f"--nodes={runtime.nodes}", "--ntasks-per-node=1"),
        *torchrun,
        f"--rdzv-id={environment['SLURM_JOB_ID']}",
        f"--rdzv-endpoint={meeting}",
        *work,
    ]
