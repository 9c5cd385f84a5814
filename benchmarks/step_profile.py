"""Where the time goes: shares of the processor time by kind of operation, of a training step and of an evaluation.

    python -m benchmarks.step_profile [--json FILE]

ResNet-50 at stride 8, 150 classes, float32 on the CPU: the rows of the table that run the whole network.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import machine
from benchmarks.rows import evaluation, training_step

_CPU = torch.device("cpu")
_CALLS = 3
_KINDS = {  # part of an operation's name -> kind; the first that fits
    "batch_norm": "batch norm",
    "conv": "convolutions",
    "mm": "matrix products and attention",
    "attention": "matrix products and attention",
    "softmax": "losses",
    "CrossEntropy": "losses",
    "nll_loss": "losses",
    "aten::exp_": "losses",
    "copy": "copies",
    "cat": "copies",
    "upsample": "resizes",
}


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Operation -> seconds, to kind -> share of all, largest first; what fits no kind is `everything else`."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        found[next((kind for part, kind in _KINDS.items() if part in name), "everything else")] += value
    total = sum(found.values())
    return {kind: value / total for kind, value in sorted(found.items(), key=lambda item: -item[1])}


def profiled(run: Callable[[], object]) -> dict[str, float]:
    """Shares of several calls after one that warms up."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(_CALLS):
            run()
    return shares({event.key: event.self_cpu_time_total for event in found.key_averages()})


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_profile", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    builders = training_step.cases(_CPU) | evaluation.cases(_CPU)
    record: dict[str, object] = {"about": machine.describe(_CPU, "benchmarks.step_profile")}
    for name in ("training step", "evaluation, single scale", "evaluation, ms+flip"):
        record[name] = found = profiled(builders[name]().ours)
        print(f"{name}: " + ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in found.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
