"""The command `run`: what `dvc repro` does, with several trainings at once, one share of the machine each.

Every stage still runs through DVC, in its own `dvc repro --single-item`, so that dvc.lock, cache and `dvc status`
are those of `dvc repro`. On a cluster the stages are started through a command that waits for its job, such as `srun`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from pipeline.config import load_project
from pipeline.config.schema import RuntimeConfig
from pipeline.errors import PipelineError
from pipeline.planning.stages import dvc_environment, run_dvc, stage_graph
from pipeline.runtime.child import interrupt
from pipeline.runtime.device import available_cores

_REPORT_EVERY = 30.0  # seconds between two lines on what is running
_TAIL = 4096  # bytes of a log in which its progress is looked for


@dataclass
class Jobs:
    """What runs at this moment, shared by the threads that wait for it."""

    root: Path
    launcher: Sequence[str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    failed: dict[str, Path] = field(default_factory=dict)  # stage -> its log
    stopping: threading.Event = field(default_factory=threading.Event)

    def log(self, stage: str) -> Path:
        """Where the output of `stage` goes."""
        return self.root / "runs" / "jobs" / f"{stage}.log"

    def run_chain(self, chain: Sequence[str], shares: SimpleQueue[Mapping[str, str]]) -> None:
        """Run stages that need each other one after the other, on a share of the machine that is free."""
        share = shares.get()
        try:
            for stage in chain:
                if self.stopping.is_set() or not self._run_stage(stage, share):
                    return
        finally:
            shares.put(share)

    def interrupt(self) -> None:
        """Ctrl-C for every running stage: a training saves its state. No further stage starts."""
        self.stopping.set()
        for process in list(self.running.values()):
            interrupt(process)

    def _run_stage(self, stage: str, share: Mapping[str, str]) -> bool:
        started, log = time.monotonic(), self.log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [*self.launcher, sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
        with log.open("wb") as output:
            # Its own session: an interrupt in the terminal reaches every stage once, through `interrupt`.
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=dvc_environment() | share,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running[stage] = process
            if self.stopping.is_set():  # `interrupt` may have come before it was among those
                interrupt(process)
            status = process.wait()
        del self.running[stage]
        if status != 0 and not self.stopping.is_set():
            self.failed[stage] = log
            print(f"FAILED {stage}: exit status {status}, see {log.relative_to(self.root)}", flush=True)
        elif status == 0:
            print(f"done   {stage}  {time.monotonic() - started:.0f} s", flush=True)
        return status == 0

    def describe(self) -> str:
        """Each running stage with the last line of its log."""
        return "\n".join(f"       {stage}  {_last_line(self.log(stage))}" for stage in list(self.running))


def run_jobs(root: Path, jobs: int, launcher: Sequence[str] = ()) -> None:
    """`dvc repro`, with `jobs` trainings or evaluations at a time.

    launcher: the beginning of a command that runs the rest elsewhere and waits for it, such as `srun --gres=gpu:1`; it
    then decides about devices and cores. Without one each training gets an equal share of this machine's. A stage that
    fails stops only what needs it. Raises PipelineError that names all failed stages with their logs, and before any
    work when the devices do not suffice; after Ctrl-C the same command resumes.
    """
    # With a folder in front it is looked up where the stages start, in `root`.
    if launcher and shutil.which(root / launcher[0] if "/" in launcher[0] else launcher[0]) is None:
        raise PipelineError(
            f"--launcher: {launcher[0]}: no such command; install it, correct it, or leave this option out"
        )
    shares = [{}] * jobs if launcher else machine_shares(load_project(root).runtime, jobs)
    run_dvc(root, "repro", *_shared(stage_graph(root)))
    chains = _chains(stage_graph(root))  # again: `plan` has checked what the matrix is made of
    at = f"through `{shlex.join(launcher)}`" if launcher else f"each with {describe_share(shares[0])}"
    print(f"{len(chains)} benchmarks and seeds, {jobs} at a time, {at}; logs in runs/jobs", flush=True)
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for share in shares:
        free.put(share)
    state = Jobs(root, launcher)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(state.run_chain, chain, free) for chain in chains]
        try:
            _watch(state, waiting)
        except KeyboardInterrupt:
            state.interrupt()
            raise
    if state.failed:
        lines = [f"{stage}: see {log.relative_to(root)}" for stage, log in sorted(state.failed.items())]
        raise PipelineError("\n".join(["these stages failed; the same command runs them again", *lines]))
    run_dvc(root, "repro")


def machine_shares(runtime: RuntimeConfig, jobs: int) -> list[dict[str, str]]:
    """Environment variables that give each of `jobs` processes its part of this machine.

    GPUs: `runtime.devices` each, of those that are visible. Cores: equal numbers, unless OMP_NUM_THREADS is set. Raises
    PipelineError when there are fewer GPUs than that takes.
    """
    gpus, each = _visible_gpus(runtime), runtime.devices
    if gpus and len(gpus) < jobs * each:
        raise PipelineError(
            f"--jobs {jobs}: {jobs} trainings on {each} GPUs each (runtime.devices) take {jobs * each}, and "
            f"{len(gpus)} are visible; use --jobs {max(1, len(gpus) // each)} or fewer"
        )
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // (jobs * each)))
    shares = [{"OMP_NUM_THREADS": threads} for _ in range(jobs)]
    if gpus:
        for index, share in enumerate(shares):
            share["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * each : (index + 1) * each])
    return shares


def describe_share(share: Mapping[str, str]) -> str:
    """`2 threads`, or `1 GPU and 2 threads`."""
    threads = share["OMP_NUM_THREADS"]
    gpus = share.get("CUDA_VISIBLE_DEVICES")
    amount = f"{threads} thread{'s' if threads != '1' else ''}"
    return f"{len(gpus.split(','))} GPU and {amount}" if gpus else amount


def _visible_gpus(runtime: RuntimeConfig) -> list[str]:
    if runtime.device == "cpu":
        return []
    import torch  # takes seconds

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def _shared(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Stages that come before any training."""
    first = [stage for stage, needs in graph.items() if "@" in stage for stage in needs if "@" not in stage]
    return list(dict.fromkeys(first))


def _chains(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The stages of each benchmark and seed, in the order in which they run."""
    chains: dict[str, list[str]] = {}
    for stage in graph:
        if "@" in stage:
            chains.setdefault(stage.partition("@")[2], []).append(stage)
    return list(chains.values())


def _watch(state: Jobs, waiting: Sequence[Future[None]]) -> None:
    left = set(waiting)
    while left:
        done, left = wait(left, timeout=_REPORT_EVERY)
        for future in done:
            future.result()
        if left and not done:
            print(f"{len(waiting) - len(left)} of {len(waiting)} done; running:\n{state.describe()}", flush=True)


def _last_line(log: Path) -> str:
    """The last line of a log that may still grow; a progress bar overwrites its own."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
