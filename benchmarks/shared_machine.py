"""A training step while other processes use the cores: `python -m benchmarks.shared_machine [--json FILE]`.

OpenMP's threads wait for each other by spinning, which stalls all of them once another process holds a core. Measured
are OpenMP's own setting, that of `pipeline` (its `__init__`), and no spinning at all, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks import machine
from pipeline import SPIN_COUNT

_SPIN_COUNTS = {"OpenMP's own": "300000", "here": SPIN_COUNT, "no spinning": "0"}
_ROUNDS, _SECONDS, _LEAST = 3, 4.0, 4  # rounds; seconds and steps of each measurement


def steps(seconds: float) -> list[float]:
    """Seconds of each training step of `digits-deeplabv3-mcibi`, batch 16, with as many threads as cores."""
    import torch

    from benchmarks.networks import ROOT, batch
    from benchmarks.rows.training_step import make_trainer
    from pipeline.config import load_benchmark
    from pipeline.models import build_segmentor
    from pipeline.training.step import training_step

    benchmark, cpu, classes = load_benchmark(ROOT, "digits-deeplabv3-mcibi"), torch.device("cpu"), 11
    model = build_segmentor(benchmark, classes, pretrained=False).to(memory_format=torch.channels_last)
    trainer = make_trainer(model, cpu, "float32", benchmark)
    part, found = batch(benchmark.augmentation.crop[0], 16, cpu, classes), []
    for _ in range(3):
        training_step(trainer, [part], 0, epoch=1)  # warm-up
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < _LEAST:
        started = time.perf_counter()
        training_step(trainer, [part], 0, epoch=1)
        found.append(time.perf_counter() - started)
    return found


def measure() -> dict[str, dict[str, list[float]]]:
    """Mean seconds per step, by number of busy processes and setting, one value per round; settings take turns."""
    cores = psutil.cpu_count() or 1
    found = {str(busy): {name: [] for name in _SPIN_COUNTS} for busy in range(cores + 1)}
    for _ in range(_ROUNDS):
        for busy, settings in found.items():
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(busy))]
            try:
                for name, values in settings.items():
                    values.append(_in_own_process(_SPIN_COUNTS[name]))
                    print(f"{busy} busy, {name}: {values[-1]:.3f} s per step", flush=True)
            finally:
                for other in others:
                    other.kill()
    return found


def _in_own_process(spin_count: str) -> float:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "benchmarks.shared_machine", "--steps"]
    environment = kept | {"GOMP_SPINCOUNT": spin_count}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return statistics.fmean(json.loads(done.stdout))


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_machine", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps:
        print(json.dumps(steps(_SECONDS)))
        return
    import torch

    about = machine.describe(torch.device("cpu"), "benchmarks.shared_machine")
    record = {"about": about, "seconds_per_step": measure()}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
