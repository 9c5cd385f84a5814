"""`python -m benchmarks [--device cpu|cuda] [--only ROW] [--json FILE]`: measure, print the table, write JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import machine, table
from benchmarks.measure import Case, extra_memory, in_turns
from benchmarks.rows import data, evaluation, memory_module, memory_update, precision, report, training_step
from pipeline.errors import report_user_errors
from pipeline.runtime.device import set_kernels

_ROWS = (memory_update, memory_module, training_step, evaluation, data, report)


def main() -> None:
    """Run the chosen rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", action="append", metavar="ROW", help="rows whose name contains ROW; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--compile", action="store_true", help="precision rows on the CPU too, small")
    parser.add_argument("--memory", nargs=2, metavar=("ROW", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    device = torch.device(arguments.device)
    if device.type == "cuda":  # as in a training; on the CPU that sets deterministic mode, which the rows do not need
        set_kernels(device, "float32")
    builders = {name: build for row in _ROWS for name, build in row.cases(device).items()}
    if arguments.memory:
        name, side = arguments.memory
        case = builders[name]()
        print(json.dumps(extra_memory(getattr(case, side), device)))
        return
    names = [*builders, *(["precision"] if device.type == "cuda" or arguments.compile else [])]
    chosen = [name for name in names if not arguments.only or any(part in name for part in arguments.only)]
    about, results = machine.describe(device), {}
    print(table.heading(about))
    started = time.perf_counter()
    for name in chosen:
        if name == "precision":
            results[name] = precision.measure(device)
            print(table.precision(results[name]), flush=True)
        else:
            results[name] = _measured(name, builders[name], device)
            print(table.line(name, results[name]), flush=True)
        about["seconds"] = time.perf_counter() - started
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps({"about": about, "rows": results}, indent=2) + "\n", encoding="utf-8")
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def _measured(name: str, build: Callable[[], Case], device: torch.device) -> dict[str, object]:
    case = build()
    result: dict[str, object] = {"setting": case.setting, **in_turns(case, device)}
    sides = [side for side in ("ours", "reference") if getattr(case, side) is not None]
    if device.type == "cuda":
        memory = {side: extra_memory(getattr(case, side), device) for side in sides}
    else:
        # Each side in a separate process: memory that one gives back must not hide what the other takes.
        del case
        memory = {side: _in_own_process(name, side, device) for side in sides} if len(sides) == 2 else {}
    return result | {"memory": memory}


def _in_own_process(name: str, side: str, device: torch.device) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks", "--device", str(device), "--memory", name, side]
    # Resident memory shall follow what tensors need, not what the C library keeps for later.
    frugal = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | frugal)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    with report_user_errors():
        main()
