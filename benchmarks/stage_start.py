"""Processor seconds that each stage of the default spends on imports.

`python -m benchmarks.stage_start [--json FILE] [STAGE ...]`. Modules that a stage imports only when it uses them are
listed here. In an older checkout run the file by its path.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

_DIGITS = "from pipeline.datasets import get_dataset; get_dataset('digits')"
_TRACKING = "from pipeline.tracking.store import load_mlflow; load_mlflow()"
LATE = {
    "plan": (_DIGITS, "import pipeline.models"),
    "download": (_DIGITS,),
    "preprocess": (_DIGITS,),
    "train": (_DIGITS, _TRACKING, "import mlflow.pytorch, torch._dynamo, pipeline.datasets.transforms"),
    "evaluate_msflip": (_DIGITS, _TRACKING),
    "report": (_DIGITS,),
}
_ROUNDS = 3


def seconds(stage: str) -> float:
    """User and system time of a process that imports what the stage imports, the best of three."""
    code, found = "\n".join([f"import stages.{stage}", *LATE[stage]]), []
    for _ in range(_ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main() -> None:
    """Measure, print, write JSON with one column: that of the checkout in the current folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_start", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    found = {}
    for name in arguments.stages or LATE:
        taken = seconds(name)
        found[name.replace("_", "-")] = [round(taken, 1)]
        print(f"{name:16} {taken:5.1f} s", flush=True)
    if arguments.json:
        git = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False)
        record = {
            "command": " ".join(["python -m benchmarks.stage_start", *sys.argv[1:]]),
            "machine": f"{platform.platform()}, {os.cpu_count()} CPU cores",
            "columns": [f"commit {git.stdout.strip() or 'unknown'}"],
            "seconds": found,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
