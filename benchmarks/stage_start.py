"""Processor seconds that each stage of the default spends on imports: `python -m benchmarks.stage_start [STAGE ...]`.

Modules that a stage imports only when it uses them are listed here. In an older checkout run the file by its path.
"""

from __future__ import annotations

import resource
import subprocess
import sys

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


if __name__ == "__main__":
    for name in sys.argv[1:] or LATE:
        print(f"{name:16} {seconds(name):5.1f} s", flush=True)
