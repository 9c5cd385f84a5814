"""A stage does not import at its start what it does not use: each process would pay seconds for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.project import ROOT

NOT_IMPORTED = {
    "plan": {"albumentations", "mlflow", "sklearn", "matplotlib", "torch"},  # torch: only once benchmarks are valid
    "download": {"albumentations", "dvc", "mlflow", "sklearn", "matplotlib", "torch", "pandas", "scipy"},
    "preprocess": {"albumentations", "dvc", "mlflow", "sklearn", "matplotlib", "torch", "scipy"},
    "train": {"mlflow", "sklearn", "matplotlib", "scipy.optimize"},
    "evaluate_msflip": {"mlflow", "sklearn", "matplotlib", "scipy.optimize"},
    "report": {"albumentations", "mlflow", "sklearn", "torch"},
}


@pytest.mark.parametrize("stage", NOT_IMPORTED)
def test_a_stage_with_the_digits_does_not_import(stage: str) -> None:
    code = (
        f"import sys, stages.{stage}; from pipeline.datasets import get_dataset; get_dataset('digits');"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not NOT_IMPORTED[stage] & set(done.stdout.split())


def test_albumentations_does_not_look_for_a_newer_version() -> None:
    code = "import os, pipeline.datasets; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    unset = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=unset, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
