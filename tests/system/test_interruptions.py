"""Whole stages on a real machine: interrupts, two at once, a full file system, a tracking server that is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from helpers.project import edit_yaml
from helpers.repro import run
from helpers.short_project import RUNTIME, SCHEDULE, short_repository, started
from helpers.tracking_server import free_port, serving

pytestmark = pytest.mark.slow

BENCHMARK = "tiny-fcn-mcibi"
TRAIN = f"train@{BENCHMARK}-0"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short repository after `dvc repro preprocess`, whose training takes 20 epochs. Copy it."""
    root = short_repository(tmp_path_factory.mktemp("short") / "project")
    edit_yaml(root / "params" / f"{BENCHMARK}.yaml", schedule=SCHEDULE | {"epochs": 20, "validate_every": 10})
    run(root, "dvc", "repro", "preprocess")
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "project")
    return tmp_path / "project"


def wait_for_state(root: Path, process: subprocess.Popen[str]) -> None:
    """Until the training that `process` runs has saved its state."""
    while not list((root / "runs" / "state").glob(f"{BENCHMARK}/*/state.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_ctrl_c_ends_repro_which_goes_on_later_while_a_second_one_is_refused(root: Path) -> None:
    first = started(root, "dvc", "repro", TRAIN)
    wait_for_state(root, first)
    os.killpg(first.pid, signal.SIGINT)
    said, _ = first.communicate()
    assert first.returncode != 0
    assert "interrupted: stopped after iteration" in said
    assert "Traceback" not in said

    again = started(root, "dvc", "repro", TRAIN)
    while "resuming after iteration" not in (line := again.stdout.readline()):
        assert line, "ended without resuming"
    os.killpg(again.pid, signal.SIGSTOP)
    second = run(root, "dvc", "repro", TRAIN, status=255)
    os.killpg(again.pid, signal.SIGCONT)
    again.communicate()
    assert "is busy, it is being blocked by" in second
    assert again.returncode == 0
    assert run(root, "dvc", "status", TRAIN).strip() == "Data and pipelines are up to date."


def test_a_training_that_a_killed_repro_left_behind_is_named_and_resumes_once_it_is_stopped(root: Path) -> None:
    first = started(root, "dvc", "repro", TRAIN)
    wait_for_state(root, first)
    (training,) = (
        child for child in psutil.Process(first.pid).children(recursive=True) if "stages.train" in child.cmdline()
    )
    training.suspend()
    first.kill()
    first.wait()
    said = run(root, "dvc", "repro", TRAIN, status=255)
    assert f"training {BENCHMARK}, seed 0: process {training.pid} on" in said
    training.terminate()
    training.resume()
    training.wait()
    assert "resuming after iteration" in run(root, "dvc", "repro", TRAIN)


def test_a_tracking_server_that_is_gone_costs_one_warning_and_sync_repairs_it(root: Path, tmp_path: Path) -> None:
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"mlflow": True})
    folder, port = tmp_path / "server", free_port()
    with serving(folder, port) as uri:
        training = started(root, sys.executable, "-m", "stages.train", BENCHMARK, "0", MLFLOW_TRACKING_URI=uri)
        wait_for_state(root, training)
    said, _ = training.communicate()
    assert training.returncode == 0, said
    assert said.count("Run `python -m pipeline sync` when it is done.") == 1
    assert "Traceback" not in said

    with serving(folder, port) as uri:
        sync = started(root, sys.executable, "-m", "pipeline", "sync", MLFLOW_TRACKING_URI=uri)
        said, _ = sync.communicate()
        assert f"train {BENCHMARK} seed 0: restored as run" in said
        client = mlflow.MlflowClient(uri)
        runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id], "tags.stage = 'train'")
        complete = [found for found in runs if found.data.tags.get("complete") == "true"]
        assert [found.info.status for found in complete] == ["FINISHED"]
        assert len(client.get_metric_history(complete[0].info.run_id, "train/loss")) == 20 * 6
    assert not (root / "mlflow.db").exists()
