"""The whole road: a real DVC repository, all stages, and what an edit runs again. The tests build on one another."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import mlflow
import pytest
from helpers.project import RUNTIME, edit_yaml, make_project
from helpers.repro import commit, make_repository, run, stages_run

from pipeline.config import load_project
from pipeline.planning.plan import plan_benchmarks, write_planned
from pipeline.planning.stages import pending_stages
from pipeline.tracking.sync import sync

NAMES = ("tiny-fcn", "tiny-fcn-mcibi")


def pending(root: Path) -> dict[str, str]:
    """What `python -m pipeline check` says of each stage: runs, follows, or up to date."""
    project = load_project(root)
    with tempfile.TemporaryDirectory() as folder:
        write_planned(project, plan_benchmarks(root, project)[0], Path(folder))
        return {stage: state.partition(":")[0] for stage, state in pending_stages(root, Path(folder)).items()}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git and DVC repository in which `dvc repro` ran once, with its output in repro.log."""
    root = make_project(tmp_path_factory.mktemp("pipeline") / "project")
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"mlflow": True})
    make_repository(root, "a small project")
    (root / "repro.log").write_text(run(root, "dvc", "repro"))
    commit(root, "its results")
    return root


def test_repro_runs_every_stage_in_order(repository: Path) -> None:
    ran = stages_run((repository / "repro.log").read_text())
    assert ran[:3] == ["plan", "download", "preprocess"]
    assert sorted(ran[3:-1]) == sorted(f"{stage}@{name}-0" for name in NAMES for stage in ("evaluate-msflip", "train"))
    assert ran[-1] == "report"
    metrics = json.loads((repository / "runs/evaluate/tiny-fcn-mcibi/0/metrics.json").read_text())
    assert f"{100 * metrics['ms_flip']['miou']:.2f}" in (repository / "reports" / "report.md").read_text()


def test_second_repro_does_nothing(repository: Path) -> None:
    output = run(repository, "dvc", "repro")
    assert stages_run(output) == []
    assert "up to date" in output


def test_metrics_params_plots_and_dag_are_declared(repository: Path) -> None:
    metrics = json.loads(run(repository, "dvc", "metrics", "show", "--json"))
    assert "runs/evaluate/tiny-fcn-mcibi/0/metrics.json" in metrics[""]["data"]
    assert "train@tiny-fcn-mcibi-0" in run(repository, "dvc", "dag", "--md")
    plots = json.loads(run(repository, "dvc", "plots", "show", "--json"))
    assert "runs/curves/tiny-fcn/0/validation.csv" in plots["data"]
    assert not plots.get("errors")


def test_mlflow_holds_one_parent_per_benchmark_with_training_and_evaluation_below(repository: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{repository / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    parents = {r.info.run_id: r for r in runs if "mlflow.parentRunId" not in r.data.tags}
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert sorted(r.data.tags["benchmark"] for r in parents.values()) == list(NAMES)
    stages = sorted((r.data.tags["benchmark"], r.data.tags["stage"]) for r in children)
    assert stages == [(name, stage) for name in NAMES for stage in ("evaluate-msflip", "train")]
    assert all(r.data.tags["mlflow.parentRunId"] in parents for r in children)
    assert all(r.info.status == "FINISHED" for r in runs)


@pytest.mark.slow
def test_ablation_of_the_memory_runs_only_the_memory_benchmark_again(repository: Path) -> None:
    edit_yaml(repository / "params.yaml", ablation={"memory": {"strategy": "mean"}, "loss": {"consistency": None}})
    assert run(repository, "dvc", "params", "diff").count("ablation.memory.strategy") == 1
    states = pending(repository)
    ran = stages_run(run(repository, "dvc", "repro"))
    assert ran == ["plan", "train@tiny-fcn-mcibi-0", "evaluate-msflip@tiny-fcn-mcibi-0", "report"]
    assert [stage for stage, state in states.items() if state != "up to date"] == ran
    assert "ms_flip.miou" in run(repository, "dvc", "metrics", "diff")


@pytest.mark.slow
def test_undoing_the_ablation_restores_from_the_cache_and_every_result_has_its_mlflow_run(repository: Path) -> None:
    edit_yaml(repository / "params.yaml", ablation={"memory": {"strategy": None}, "loss": {"consistency": None}})
    output = run(repository, "dvc", "repro")
    assert stages_run(output) == []
    assert "is cached" in output
    assert sync(repository) == []


@pytest.mark.slow
def test_new_test_scale_evaluates_again_without_training(repository: Path) -> None:
    path = repository / "params" / "tiny-fcn.yaml"
    inference = {"ms_flip": {"scales": [1.0, 0.75], "flip": True, "average": "probabilities"}}
    before = path.read_text()
    edit_yaml(path, inference=inference)
    ran = stages_run(run(repository, "dvc", "repro"))
    assert ran == ["plan", "evaluate-msflip@tiny-fcn-0", "report"]
    path.write_text(before)


def test_code_of_the_memory_trains_again_without_preprocessing(repository: Path) -> None:
    path = repository / "pipeline" / "models" / "memory.py"
    before = path.read_text()
    path.write_text(before + "\n# changed\n")
    changed = run(repository, "dvc", "status")
    path.write_text(before)
    assert "train@tiny-fcn-mcibi-0" in changed
    assert "preprocess:" not in changed


def test_typo_stops_before_any_work(repository: Path) -> None:
    before = (repository / "params.yaml").read_text()
    edit_yaml(repository / "params.yaml", ablation={"memory": {"strtegy": "mean"}})
    output = run(repository, "dvc", "repro", status=255)
    (repository / "params.yaml").write_text(before)
    assert stages_run(output) == ["plan"]
    assert "ablation.memory.strtegy: unknown key; did you mean `strategy`?" in output


@pytest.mark.slow
def test_experiment_from_the_command_line(repository: Path) -> None:
    run(repository, "git", "checkout", "-q", "--", ".")
    run(repository, "dvc", "checkout", "-q")
    run(repository, "dvc", "exp", "run", "--name", "average", "-S", "ablation.memory.strategy=mean")
    shown = run(repository, "dvc", "exp", "show", "--csv")
    assert "average" in shown
    shutil.rmtree(repository / ".dvc" / "tmp" / "exps", ignore_errors=True)
