"""The report on results of many images. No reference."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import Case
from benchmarks.networks import ROOT

_IMAGES = 1000


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """One line."""
    return {"report": _report}


def _report() -> Case:
    sys.path.append(str(ROOT / "tests"))
    from helpers import fake_results  # the tests' maker of results is not installed anywhere

    from pipeline.reporting.report import write_report

    root = Path(tempfile.mkdtemp())
    benchmarks = [fake_results.benchmark("fcn", memory) for memory in (False, True)]
    fake_results.write_results(root, seeds=(0,), images=_IMAGES, benchmarks=benchmarks)
    return Case(
        f"two benchmarks, one seed, {_IMAGES} images of 72x96",
        lambda: write_report(root, root / "out"),
        rounds=1,
        unit="report",
    )
