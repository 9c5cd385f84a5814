"""Many benchmarks at once, results shared between machines, one tracking server: in real repositories."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from helpers.project import edit_yaml
from helpers.repro import commit, run, stages_run
from helpers.short_project import RUNTIME, short_repository, started
from helpers.tracking_server import free_port, serving

pytestmark = pytest.mark.slow

BENCHMARK = "tiny-fcn-mcibi"
PATIENCE = 600  # seconds for a queue


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a tracking server."""
    with serving(tmp_path_factory.mktemp("server"), free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A repository with a remote, in which two shells trained two benchmarks at once, tracked by a server."""
    folder = tmp_path_factory.mktemp("scale")
    root = short_repository(folder / "project", mlflow=True)
    run(root, "dvc", "remote", "add", "--default", "storage", str(folder / "remote"))
    commit(root, "a remote")
    run(root, "dvc", "repro", "preprocess")
    shells = [
        started(root, "dvc", "--wait-for-lock", "repro", "--single-item", f"train@{name}-0", MLFLOW_TRACKING_URI=server)
        for name in ("tiny-fcn", BENCHMARK)
    ]
    for shell in shells:
        said, _ = shell.communicate()
        assert shell.returncode == 0, said
    finish = started(root, "dvc", "repro", MLFLOW_TRACKING_URI=server)
    said, _ = finish.communicate()
    assert finish.returncode == 0, said
    (root / "repro.log").write_text(said)
    commit(root, "results")
    return root


def tracked(uri: str) -> list[tuple[str, str, str]]:
    """Benchmark, stage and status of every run."""
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    return sorted((found.data.tags["benchmark"], found.data.tags["stage"], found.info.status) for found in runs)


def test_two_shells_may_train_two_benchmarks_at_once(repository: Path) -> None:
    ran = stages_run((repository / "repro.log").read_text())
    assert ran == ["evaluate-msflip@tiny-fcn-0", f"evaluate-msflip@{BENCHMARK}-0", "report"]


def test_a_tracking_server_gets_every_run_and_the_repository_none(repository: Path, server: str) -> None:
    assert tracked(server) == [
        (benchmark, stage, "FINISHED")
        for benchmark in ("tiny-fcn", BENCHMARK)
        for stage in ("evaluate-msflip", "parent", "train")
    ]
    assert not (repository / "mlflow.db").exists()


def test_a_clone_restores_the_results_from_the_remote_without_running_anything(repository: Path) -> None:
    run(repository, "dvc", "push")
    clone = repository.parent / "clone"
    run(repository.parent, "git", "clone", "-q", str(repository), str(clone))
    run(clone, "dvc", "pull")
    assert stages_run(run(clone, "dvc", "repro")) == []
    for name in (f"runs/train/{BENCHMARK}/0/last.safetensors", "reports/report.html"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()
    assert not (clone / "data" / "raw").exists()
    shutil.rmtree(clone)


def test_queued_experiments_run_at_once_and_share_raw_data_and_the_store_of_the_repository(repository: Path) -> None:
    edit_yaml(repository / "params.yaml", benchmarks=[BENCHMARK], runtime=RUNTIME | {"mlflow": True})
    commit(repository, "one benchmark")
    for name, setting in (("average", "memory.strategy=mean"), ("quiet", "loss.consistency=0")):
        run(repository, "dvc", "exp", "run", "--queue", "--name", name, "-S", f"ablation.{setting}")
    run(repository, "dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + PATIENCE
    while "Running" in (status := run(repository, "dvc", "queue", "status")) or "Queued" in status:
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 2, run(repository, "dvc", "queue", "logs", "average")
    shown = run(repository, "dvc", "exp", "show", "--csv")
    assert "average" in shown
    assert "quiet" in shown
    assert len([entry for entry in tracked(f"sqlite:///{repository}/mlflow.db") if entry[1] == "train"]) == 2
    assert not list((repository / ".dvc" / "tmp" / "exps").glob("tmp*/mlflow.db"))
    run(repository, "dvc", "exp", "apply", "average")
    assert yaml.safe_load((repository / "params.yaml").read_text())["ablation"]["memory"]["strategy"] == "mean"
    run(repository, "dvc", "queue", "stop", "--kill")
