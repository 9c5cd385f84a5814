"""The command `run`: several trainings at once give what `dvc repro` gives."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from helpers.project import edit_yaml
from helpers.repro import commit, run, stages_run
from helpers.short_project import short_repository, started
from helpers.slurm import can_run, slurm

pytestmark = pytest.mark.slow

NAMES = ("tiny-fcn", "tiny-fcn-mcibi")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as in the sequential run that the results are compared with
COMMAND = ("python", "-m", "pipeline", "run", "--jobs", "2")


def weights(root: Path) -> list[bytes]:
    return [(root / "runs" / "train" / name / "0" / "last.safetensors").read_bytes() for name in NAMES]


def finished(root: Path, *command: str, status: int = 0) -> str:
    process = started(root, *command, **ONE_THREAD)
    said, _ = process.communicate()
    assert process.returncode == status, said
    return said


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the data is prepared and nothing is trained."""
    root = short_repository(tmp_path_factory.mktemp("jobs") / "project", epochs=6)
    run(root, "dvc", "repro", "preprocess")
    return root


@pytest.fixture
def repository(fresh: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fresh, tmp_path / "project", symlinks=True)


@pytest.fixture(scope="module")
def sequential(fresh: Path) -> list[bytes]:
    """The weights of `dvc repro`."""
    root = shutil.copytree(fresh, fresh.with_name("sequential"), symlinks=True)
    finished(root, "dvc", "repro")
    return weights(root)


def test_two_at_once_give_the_weights_of_one_after_the_other_and_leave_nothing_to_do(
    repository: Path, sequential: list[bytes]
) -> None:
    said = finished(repository, *COMMAND)
    assert "2 benchmarks and seeds, 2 at a time, each with 1 thread; logs in runs/jobs" in said
    assert weights(repository) == sequential
    assert (repository / "reports" / "report.html").exists()
    assert stages_run(finished(repository, "dvc", "repro")) == []


def test_one_that_fails_leaves_the_others_alone_and_is_named_with_its_log(repository: Path) -> None:
    edit_yaml(repository / "params" / "tiny-fcn.yaml", optimizer={"name": "sgd", "lr": 1e30})
    commit(repository, "a learning rate that cannot work")
    said = finished(repository, *COMMAND, status=1)
    assert "the same command runs them again\ntrain@tiny-fcn-0: see runs/jobs/train@tiny-fcn-0.log" in said
    assert re.search(r"tiny-fcn: .*(loss|norm) is", (repository / "runs" / "jobs" / "train@tiny-fcn-0.log").read_text())
    assert "done   evaluate-msflip@tiny-fcn-mcibi-0" in said
    assert not (repository / "runs" / "jobs" / "evaluate-msflip@tiny-fcn-0.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_or_a_kill_stops_all_and_the_same_command_resumes_to_the_same_weights(
    repository: Path, sequential: list[bytes], number: signal.Signals
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, by the program that is started too
    process = started(repository, *COMMAND, **ONE_THREAD)
    while len(list((repository / "runs" / "state").glob("*/*/state.pt"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, number)
    said, _ = process.communicate()
    assert process.returncode != 0, said
    assert "Traceback" not in said
    finished(repository, *COMMAND)
    logs = (repository / "runs" / "jobs").glob("train@*.log")
    assert any("resuming after iteration" in log.read_text() for log in logs)
    assert weights(repository) == sequential


def test_a_launcher_starts_every_stage(repository: Path) -> None:
    launcher = repository / "launcher"
    launcher.write_text('#!/bin/sh\necho "$7" >> launched\nexec "$@"\n')
    launcher.chmod(0o755)
    finished(repository, *COMMAND, "--launcher", str(launcher))
    launched = (repository / "launched").read_text().split()
    assert sorted(launched) == sorted(f"{stage}@{name}-0" for stage in ("train", "evaluate-msflip") for name in NAMES)


@pytest.mark.skipif(not can_run(), reason="needs Slurm and munge (Debian: slurm-wlm, munge), and root to start them")
def test_slurm_runs_every_stage_as_a_job(repository: Path, sequential: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm(Path(folder)) as environment:
        command = (*COMMAND, "--launcher", "srun --quit-on-interrupt --ntasks=1 --cpus-per-task=1")
        process = started(repository, *command, **ONE_THREAD, **environment)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        jobs = (Path(folder) / "slurmctld.log").read_text()
    assert weights(repository) == sequential
    assert jobs.count("WEXITSTATUS 0") == 4  # two trainings and two evaluations
