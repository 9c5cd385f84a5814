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
import pytest
from helpers.project import edit_yaml
from helpers.repro import ENVIRONMENT, run, stages_run
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


def test_ctrl_c_ends_repro_which_goes_on_later_while_a_second_one_is_told_to_wait(root: Path) -> None:
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


def test_a_damaged_image_is_made_anew_by_repro_and_the_training_goes_on(root: Path) -> None:
    image = root / "data" / "prepared" / "digits" / "images" / "train" / "train_0003.png"
    before = image.read_bytes()
    image.unlink()
    image.write_bytes(b"rubbish")
    said = run(root, "dvc", "repro", TRAIN, status=255)
    assert f"error: {image}: cannot be decoded as an image (7 bytes); delete this file and run `dvc repro`" in said
    image.unlink()
    said = run(root, "dvc", "repro", TRAIN)
    assert stages_run(said) == ["preprocess", TRAIN]
    assert "resuming after iteration" in said
    assert image.read_bytes() == before


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="needs a mount namespace of its own",
)
def test_a_full_or_read_only_file_system_stops_the_training_which_goes_on_when_there_is_room(root: Path) -> None:
    """runs/ on a file system of 2 MB, then read-only, then of 400 MB."""
    script = f"""
cp -r runs plan-copy && mount -t tmpfs -o size=2m tmpfs runs && cp -r plan-copy/plan runs/
train="{sys.executable} -m stages.train {BENCHMARK} 0"
$train; echo "status $?"
mount -o remount,ro runs
$train; echo "status $?"
mount -o remount,rw,size=400m runs
$train; echo "status $?"
ls runs/train/{BENCHMARK}/0
"""
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], cwd=root, env=ENVIRONMENT, text=True, capture_output=True, check=False
    )
    full, read_only = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "No space left on device; free some space there, then run the same command again" in full
    assert "Read-only file system; make this file system writable" in read_only
    assert "Traceback" not in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == [
        "status 1",
        "status 1",
        "status 0",
    ]
    assert "last.safetensors" in done.stdout


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
