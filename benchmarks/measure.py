"""Timing two implementations in turns, and the memory that one call needs beyond what was allocated before it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import torch

Run = Callable[[], object]
Tensors = Mapping[str, torch.Tensor]
_SAMPLING_SECONDS = 0.002
_GPU_ROUNDS, _GPU_SECONDS = 15, 5.0  # rounds are short there; none begins after these seconds


@dataclass(frozen=True)
class Case:
    """One line of the table: the same work done by this project and, where there is one, by the reference.

    check: compares what two calls returned, ours first; raises RuntimeError when they are not equal beyond rounding and
    returns the numbers it looked at. Each side may be called any number of times; the first calls are compared.
    """

    setting: str
    ours: Run
    reference: Run | None = None
    check: Callable[[object, object], dict[str, float]] | None = None
    rounds: int = 3  # on the CPU; on a GPU at least
    per: float = 1.0  # units of work in one call: times are given per unit
    unit: str = "call"


def timed(run: Run, device: torch.device) -> float:
    """Seconds of one call, until the device is done."""
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def in_turns(case: Case, device: torch.device) -> dict[str, object]:
    """Seconds per unit of both sides, and their ratio: the median over rounds in which each side runs once.

    What else the machine does hits both sides of a round, so the ratio is steadier than either time. The first call of
    a side is its warm-up, and its result is what is checked.
    """
    first = case.ours()
    checked: dict[str, float] = {}
    if case.reference is not None:
        expected = case.reference()
        checked = case.check(first, expected) if case.check else {}
        del expected
    del first
    ours, theirs = [], []
    started = time.perf_counter()
    for done in range(case.rounds if device.type == "cpu" else _GPU_ROUNDS):
        if done >= case.rounds and time.perf_counter() - started > _GPU_SECONDS:
            break
        if case.reference is not None:
            theirs.append(timed(case.reference, device) / case.per)
        ours.append(timed(case.ours, device) / case.per)
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True)) if theirs else None
    return {
        "ours_s": statistics.median(ours),
        "reference_s": statistics.median(theirs) if theirs else None,
        "ratio": ratio,
        "rounds": {"ours_s": ours, "reference_s": theirs},
        "unit": case.unit,
        "checked": checked,
    }


def extra_memory(run: Run, device: torch.device) -> dict[str, int]:
    """Bytes that one call needs at its peak beyond what was there before: `extra`; and `total`, of the whole process.

    On the CPU: resident memory, sampled every 2 ms. On a GPU: the allocator's own count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        return {"extra": peak - before, "total": peak}
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    seen = [before]

    def sample() -> None:
        while not done.wait(_SAMPLING_SECONDS):
            seen.append(process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        run()
    finally:
        done.set()
        sampler.join()
    return {"extra": max(seen) - before, "total": max(seen)}


def require_close(name: str, ours: torch.Tensor, reference: torch.Tensor, tolerance: float) -> dict[str, float]:
    """Root mean square difference relative to the reference's; RuntimeError when it exceeds `tolerance`.

    Not the largest difference: rounding turns a few activations near zero on or off, whose gradients then differ.
    """
    difference = (ours.float() - reference.float()).square().mean().sqrt()
    error = (difference / reference.float().square().mean().sqrt().clamp(min=1e-12)).item()
    if not error <= tolerance:
        raise RuntimeError(f"{name}: differs by {error:.3g} of its size from the reference, allowed {tolerance:g}")
    return {name: error}


def all_close(tolerances: Mapping[str, float], otherwise: float) -> Callable[[Tensors, Tensors], dict[str, float]]:
    """A check of `Case` that compares tensors by name. tolerances: of the names that are not allowed `otherwise`."""

    def check(ours: Tensors, reference: Tensors) -> dict[str, float]:
        errors: dict[str, float] = {}
        for name, expected in reference.items():
            errors |= require_close(name, ours[name], expected, tolerances.get(name, otherwise))
        return errors

    return check


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
