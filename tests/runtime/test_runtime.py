"""What a process takes of the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from helpers.project import ROOT

from pipeline.runtime import device
from pipeline.runtime.device import autocast, set_kernels, worker_count
from pipeline.training.loop import peak_memory


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(16, 1, 8), (16, 4, 3), (8, 8, 0), (4, 8, 0), (1, 1, 0)])
def test_ranks_on_one_machine_share_its_cores(
    cores: int, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert worker_count(None) == workers


def test_a_number_that_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count(5) == 5


@pytest.mark.usefixtures("kernels_as_before")
@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_products_of_float32_are_exact_on_a_gpu_unless_tf32_is_asked_for(precision: str, rounded: bool) -> None:
    set_kernels(torch.device("cuda"), precision)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (rounded, rounded)
    with autocast(torch.device("cpu"), precision):
        expected = torch.bfloat16 if precision == "bfloat16" else torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_peak_memory_is_in_bytes_whatever_unit_the_system_counts_in(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = peak_memory(torch.device("cpu"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert linux / peak_memory(torch.device("cpu")) == pytest.approx(1024, rel=0.01)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "10000"),
        pytest.param({"OMP_WAIT_POLICY": "PASSIVE"}, "0", marks=pytest.mark.slow),
        pytest.param({"GOMP_SPINCOUNT": "7"}, "7", marks=pytest.mark.slow),
    ],
    ids=["default", "passive", "own"],
)
def test_threads_spin_briefly_unless_the_user_chooses(chosen: dict[str, str], expected: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = kept | chosen | {"OMP_DISPLAY_ENV": "VERBOSE"}  # OpenMP prints what it read when torch loads it
    command = [sys.executable, "-c", "import stages.train"]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=True)
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not found:
        pytest.skip("this torch does not use GNU's OpenMP")
    assert found[0] == expected
