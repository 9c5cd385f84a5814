"""Training: identical after a real kill, whatever the moment; what it writes; how it fails."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import edit_yaml, run_stage
from safetensors.numpy import load_file

BENCHMARK = "tiny-fcn-mcibi"


@pytest.fixture
def trainable(prepared_project: Path, tmp_path: Path) -> Path:
    """A project ready to train, that saves its state every third iteration."""
    root = tmp_path / "trainable"
    shutil.copytree(prepared_project, root)
    runtime = {"device": "cpu", "workers": 0, "evaluation_batch": 8, "mlflow": False, "log_every": 5, "save_every": 3}
    edit_yaml(root / "params.yaml", runtime=runtime)
    return root


@pytest.fixture(scope="module")
def uninterrupted(prepared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which tiny-fcn-mcibi was trained from start to end."""
    root = tmp_path_factory.mktemp("uninterrupted") / "project"
    shutil.copytree(prepared_project, root)
    run_stage(root, "train", BENCHMARK, "0")
    return root


def results(root: Path) -> Path:
    return root / "runs" / "train" / BENCHMARK / "0"


def interrupt(root: Path, iterations: int, number: signal.Signals) -> int:
    """Train until the saved state is past `iterations`, then send `number`; returns the exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", BENCHMARK, "0"],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    states = root / "runs" / "state" / BENCHMARK
    seen: set[float] = set()
    while process.poll() is None and len(seen) < iterations // 3:
        seen |= {path.stat().st_mtime_ns for path in states.glob("*/state.pt")}
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait(timeout=60)


def test_killed_twice_and_run_again_gives_identical_results(trainable: Path, uninterrupted: Path) -> None:
    assert interrupt(trainable, 6, signal.SIGKILL) == -signal.SIGKILL
    assert not results(trainable).exists()
    assert interrupt(trainable, 9, signal.SIGKILL) == -signal.SIGKILL
    done = run_stage(trainable, "train", BENCHMARK, "0")
    assert "resuming after iteration" in done.stdout + done.stderr
    for name in ("last.safetensors", "best.safetensors", "summary.json"):
        assert (results(trainable) / name).read_bytes() == (results(uninterrupted) / name).read_bytes(), name


def test_terminated_run_saves_its_iteration_and_resumes(trainable: Path, uninterrupted: Path) -> None:
    assert interrupt(trainable, 3, signal.SIGTERM) not in (0, -signal.SIGTERM)
    run_stage(trainable, "train", BENCHMARK, "0")
    name = "last.safetensors"
    assert (results(trainable) / name).read_bytes() == (results(uninterrupted) / name).read_bytes()


def test_worker_processes_do_not_change_the_weights(trainable: Path, uninterrupted: Path) -> None:
    edit_yaml(trainable / "params.yaml", runtime={"device": "cpu", "workers": 2, "mlflow": False})
    run_stage(trainable, "train", BENCHMARK, "0")
    name = "last.safetensors"
    assert (results(trainable) / name).read_bytes() == (results(uninterrupted) / name).read_bytes()


def test_another_seed_gives_other_weights(trainable: Path, uninterrupted: Path) -> None:
    run_stage(trainable, "train", BENCHMARK, "1")
    other = load_file(trainable / "runs" / "train" / BENCHMARK / "1" / "last.safetensors")
    first = load_file(results(uninterrupted) / "last.safetensors")
    assert other.keys() == first.keys()
    assert not np.array_equal(other["memory.memory"], first["memory.memory"])


def test_finished_run_leaves_no_state_behind(uninterrupted: Path) -> None:
    assert not list((uninterrupted / "runs" / "state").rglob("*.pt"))


def test_curves_summary_and_memory_are_written(uninterrupted: Path) -> None:
    curves = uninterrupted / "runs" / "curves" / BENCHMARK / "0"
    history, validation = pd.read_csv(curves / "history.csv"), pd.read_csv(curves / "validation.csv")
    summary = json.loads((results(uninterrupted) / "summary.json").read_text())
    assert history["iteration"].iloc[-1] == summary["iterations"] == 2 * (1200 // 64)
    assert history["lr"].is_monotonic_decreasing
    assert history.loc[history["epoch"] == 1, "loss_consistency"].isna().all()  # starts with epoch 2
    assert history.loc[history["epoch"] == 2, "loss_consistency"].notna().all()
    assert list(validation["epoch"]) == [1, 2]
    assert summary["best"]["miou"] == validation["miou"].max()
    with np.load(results(uninterrupted) / "memory.npz") as memory:
        assert memory["touched"].all()
        assert memory["first_epoch"].shape == memory["final"].shape == (11, 1, 16)
        weights = load_file(results(uninterrupted) / "last.safetensors")
        np.testing.assert_array_equal(memory["final"], weights["memory.memory"])


def test_loss_that_is_not_finite_stops_with_the_batch(trainable: Path) -> None:
    plan = trainable / "runs" / "plan" / "train" / f"{BENCHMARK}.yaml"
    edit_yaml(plan, optimizer={"lr": 1e30})
    command = [sys.executable, "-m", "stages.train", BENCHMARK, "0"]
    done = subprocess.run(command, cwd=trainable, text=True, capture_output=True)
    assert done.returncode == 1
    assert "loss is" in done.stderr
    assert "Lower optimizer.lr" in done.stderr
    assert "Images of the batch:" in done.stderr


def test_batch_larger_than_the_split_is_an_error(trainable: Path) -> None:
    plan = trainable / "runs" / "plan" / "train" / f"{BENCHMARK}.yaml"
    edit_yaml(plan, schedule={"epochs": 1, "batch_size": 5000})
    command = [sys.executable, "-m", "stages.train", BENCHMARK, "0"]
    done = subprocess.run(command, cwd=trainable, text=True, capture_output=True)
    assert done.returncode == 1
    assert "schedule.batch_size: 5000 is larger than the training split of digits" in done.stderr
