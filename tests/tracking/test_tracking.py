"""MLflow tracking, on real SQLite stores."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.project import ROOT, copy_prepared
from helpers.tracking_files import (
    FINGERPRINT,
    RUNTIME,
    track_both_stages,
    training_points,
    write_evaluation,
    write_prepared,
    write_training,
)
from torch import nn

from pipeline.config.load import load_resolved
from pipeline.config.parse import parse
from pipeline.config.schema import Benchmark, RuntimeConfig, StartConfig
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.layout import Layout
from pipeline.results.metrics import Counts
from pipeline.results.record import BOUNDARY, PROTOCOLS, EvaluationFiles, TrainingFiles
from pipeline.results.statistics import frame_blocks, scores
from pipeline.tracking.identity import flat_parameters
from pipeline.tracking.model import log_model
from pipeline.tracking.runs import stage_run
from pipeline.tracking.store import load_mlflow, open_store, tracking_uri
from pipeline.tracking.sync import sync
from pipeline.training.state import run_key

FOUR_PROCESSES = """
import multiprocessing, sys
from pathlib import Path
from pipeline.tracking.store import load_mlflow, open_store

def use_store(barrier):
    barrier.wait()
    with open_store(Path(sys.argv[1])) as store:
        with store.lock():
            experiment = store.experiment("parallel")
        store.client.set_terminated(store.client.create_run(experiment).info.run_id)

load_mlflow()  # once, before forking: it takes seconds
context = multiprocessing.get_context("fork")
barrier = context.Barrier(4)
processes = [context.Process(target=use_store, args=(barrier,)) for _ in range(4)]
for process in processes:
    process.start()
for process in processes:
    process.join()
sys.exit(any(process.exitcode for process in processes))
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def benchmark(tiny: dict[str, Any]) -> Benchmark:
    return parse(Benchmark, {"id": "tiny", **tiny, "memory": {}}, "tiny")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store's database to copy, since creating one takes seconds."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        with open_store(root):
            return root / "mlflow.db"


@pytest.fixture
def root(database: Path, tmp_path: Path) -> Path:
    """An empty project with an initialised store, in a folder whose name needs care in a URI."""
    root = tmp_path / "a project #1"
    root.mkdir()
    shutil.copy(database, root)
    write_prepared(root)
    return root


@pytest.fixture
def client(root: Path) -> Iterator[Any]:
    """MLflow's client, on the store of `root`."""
    yield load_mlflow().MlflowClient(tracking_uri=tracking_uri(root))


@pytest.mark.parametrize("name", ["feature%2Fx", "what?"])
def test_a_folder_whose_name_mlflow_would_read_otherwise_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with (
        pytest.raises(PipelineError, match=r"rename the folder, set MLFLOW_TRACKING_URI .*`runtime.mlflow: false`"),
        open_store(tmp_path / name),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def runs_of(client: Any, stage: str) -> list[Any]:
    experiment = client.get_experiment_by_name("digits")
    found = client.search_runs([experiment.experiment_id], f"tags.stage = '{stage}'", order_by=["start_time DESC"])
    return list(found)


def curve(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def artifacts(client: Any, run_id: str, folder: str = "") -> set[str]:
    return {item.path for item in client.list_artifacts(run_id, folder)}


def state_folder(root: Path, benchmark: Benchmark) -> Path:
    return Layout(root).state(benchmark.id, run_key(benchmark, 0, FINGERPRINT, "float32"))


def interrupted_training(root: Path, benchmark: Benchmark, upto: int) -> None:
    """A training that is stopped after `upto` log calls, leaving its resumable state."""
    with pytest.raises(KeyboardInterrupt), stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        for step, values in training_points()[:upto]:
            run.log(step, values)
        raise KeyboardInterrupt
    state = state_folder(root, benchmark)
    state.mkdir(parents=True, exist_ok=True)
    (state / "state.pt").touch()


@pytest.mark.slow
def test_four_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FOUR_PROCESSES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    client = load_mlflow().MlflowClient(tracking_uri=tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name("parallel")
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_store_is_at_the_root_unless_the_user_or_dvc_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(tmp_path / "here") == f"sqlite:///{tmp_path}/here/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))  # a queued experiment in .dvc/tmp
    assert tracking_uri(tmp_path / "here") == f"sqlite:///{tmp_path}/repository/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri(tmp_path / "here") == "http://server:5000"


def test_store_leaves_the_environment_as_it_was(root: Path) -> None:
    with open_store(root):
        assert load_mlflow().get_tracking_uri() == tracking_uri(root)
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_mlflow_reports_nothing_to_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    load_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_unreachable_store_is_an_error_before_the_stage_begins(
    root: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    expected = pytest.raises(PipelineError, match=r"(?s)\*\*\*@127.*mlflow: false")
    with expected as caught, stage_run(root, benchmark, 0, "train", RUNTIME):
        pytest.fail("must not begin")
    assert "secret" not in str(caught.value)


def test_missing_mlflow_is_an_error_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # what Python does for a package that is not there
    with pytest.raises(PipelineError, match=r"runtime\.mlflow: false"):
        sync(tmp_path)


def test_stages_nest_below_one_parent_share_its_tags_and_leave_nothing_to_sync(
    root: Path, client: Any, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@tiny-0")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-newt")
    with stage_run(root, benchmark, 0, "train", RUNTIME):
        write_training(root, benchmark)
    with stage_run(root, benchmark, 0, "evaluate-msflip", RUNTIME):
        write_evaluation(root, benchmark)
    (parent,) = runs_of(client, "parent")
    (train,), (evaluate,) = runs_of(client, "train"), runs_of(client, "evaluate-msflip")
    assert train.data.tags["mlflow.parentRunId"] == evaluate.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert [run.info.status for run in (parent, train, evaluate)] == ["FINISHED"] * 3
    assert parent.info.run_name == "tiny seed 0"
    tags = train.data.tags
    assert (tags["benchmark"], tags["seed"]) == ("tiny", "0")
    assert tags["run_key"] == parent.data.tags["run_key"] == evaluate.data.tags["run_key"]
    assert (tags["dvc_stage"], tags["dvc_experiment"]) == ("train@tiny-0", "brave-newt")
    assert tags["data_fingerprint"] == FINGERPRINT
    assert train.data.params["segmentor.framework"] == parent.data.params["segmentor.framework"] == "fcn"
    assert train.data.params["runtime.precision"] == "float32"
    assert evaluate.data.params["inference.ms_flip.flip"] == "true"
    assert "inference.ms_flip.flip" not in train.data.params  # a training does not depend on it
    assert "config.yaml" in artifacts(client, train.info.run_id)
    (data,) = train.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == ("digits", "training")
    assert sync(root) == []


def test_a_training_that_starts_from_another_has_one_parent_and_nothing_to_sync(
    root: Path, client: Any, benchmark: Benchmark
) -> None:
    base = benchmark.model_copy(update={"id": "base"})
    write_training(root, base)
    start = StartConfig(benchmark="base", config_hash=TrainingFiles(Layout(root), "base", 0).record.config_hash)
    track_both_stages(root, benchmark.model_copy(update={"start": start}))
    assert [line for line in sync(root) if "tiny" in line] == []
    (parent,) = (run for run in runs_of(client, "parent") if run.data.tags["benchmark"] == "tiny")
    network = TrainingFiles(Layout(root), "base", 0).weights("last")
    assert parent.data.tags["start_sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_that_a_surrounding_tracker_names_is_left_alone(
    root: Path, client: Any, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    theirs = client.create_run(client.create_experiment("theirs"), run_name="sweep").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs if exists else "0" * 32)
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        run.log(1, {"train/loss": 2.0})
    (train,) = runs_of(client, "train")
    assert curve(client, train.info.run_id, "train/loss") == [(1, 2.0)]
    untouched = client.get_run(theirs)
    assert (untouched.info.run_name, untouched.info.status, untouched.data.metrics) == ("sweep", "RUNNING", {})
    assert os.environ["MLFLOW_RUN_ID"] == (theirs if exists else "0" * 32)


def test_other_seeds_and_run_keys_have_other_parents(root: Path, client: Any, benchmark: Benchmark) -> None:
    for seed, precision in ((0, "float32"), (1, "float32"), (0, "bfloat16")):
        with stage_run(root, benchmark, seed, "train", RuntimeConfig(precision=precision)):
            pass
    assert len(runs_of(client, "parent")) == 3


def test_failed_stage_keeps_its_error(root: Path, client: Any, benchmark: Benchmark) -> None:
    with pytest.raises(ValueError, match="loss is NaN"), stage_run(root, benchmark, 0, "train", RUNTIME):
        raise ValueError("loss is NaN")
    (train,), (parent,) = runs_of(client, "train"), runs_of(client, "parent")
    assert (train.info.status, parent.info.status) == ("FAILED", "FAILED")
    assert train.data.tags["error"] == "ValueError: loss is NaN"
    assert "error.txt" in artifacts(client, train.info.run_id)


def test_parent_of_a_run_that_cannot_begin_has_failed(root: Path, client: Any, benchmark: Benchmark) -> None:
    mlflow = load_mlflow()
    refused = pytest.raises(PipelineError, match="already active")
    with open_store(root), mlflow.start_run(), refused, stage_run(root, benchmark, 0, "train", RUNTIME):
        pytest.fail("must not begin")
    (parent,) = runs_of(client, "parent")
    assert (parent.info.status, runs_of(client, "train")) == ("FAILED", [])


@pytest.mark.parametrize("place", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_artifacts_stay_below_a_repository_that_was_moved_or_copied(
    root: Path, benchmark: Benchmark, capsys: pytest.CaptureFixture[str], place: Callable[[Path, Path], object]
) -> None:
    with stage_run(root, benchmark, 0, "train", RUNTIME):
        write_training(root, benchmark)
    before = sorted(root.rglob("*"))
    elsewhere = root.with_name("its new place")
    place(root, elsewhere)
    with stage_run(elsewhere, benchmark, 0, "evaluate-msflip", RUNTIME):
        write_evaluation(elsewhere, benchmark)
    assert f"was at {root} before" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == (before if root.exists() else [])
    there = load_mlflow().MlflowClient(tracking_uri=tracking_uri(elsewhere))
    for stage in ("train", "evaluate-msflip"):
        (run,) = runs_of(there, stage)
        assert run.info.artifact_uri.startswith((elsewhere / "mlartifacts").as_uri())
        assert artifacts(there, run.info.run_id)
    with open_store(elsewhere):
        assert "before" not in capsys.readouterr().out


def test_artifacts_that_a_user_keeps_elsewhere_stay_there(root: Path, client: Any) -> None:
    shared = (root.parent / "shared artifacts").as_uri()
    experiment = client.create_experiment("digits", artifact_location=shared)
    with open_store(root):
        pass
    assert client.get_experiment(experiment).artifact_location == shared


def test_resumed_training_continues_its_run_without_repeating_points(
    root: Path, client: Any, benchmark: Benchmark
) -> None:
    interrupted_training(root, benchmark, upto=3)
    assert runs_of(client, "train")[0].info.status == "KILLED"
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        for step, values in training_points()[1:]:  # the saved state is older than the last logged point
            run.log(step, values)
    (train,) = runs_of(client, "train")
    assert train.info.status == "FINISHED"
    assert train.data.tags["resumed"] == "1"
    assert [step for step, _ in curve(client, train.info.run_id, "train/loss")] == [10, 20, 30, 40]


def test_training_that_starts_over_supersedes_the_earlier_run(root: Path, client: Any, benchmark: Benchmark) -> None:
    interrupted_training(root, benchmark, upto=2)
    shutil.rmtree(state_folder(root, benchmark))
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        run.log(*training_points()[0])
    newest, earlier = runs_of(client, "train")
    assert earlier.data.tags["superseded_by"] == newest.info.run_id
    assert [step for step, _ in curve(client, newest.info.run_id, "train/loss")] == [10]
    assert len(runs_of(client, "parent")) == 1


def test_results_of_both_stages_reach_their_runs_and_the_parent(root: Path, client: Any, benchmark: Benchmark) -> None:
    track_both_stages(root, benchmark)
    (train,), (evaluate,) = runs_of(client, "train"), runs_of(client, "evaluate-msflip")
    (parent,) = runs_of(client, "parent")
    assert train.data.tags["complete"] == evaluate.data.tags["complete"] == "true"
    assert curve(client, train.info.run_id, "train/loss") == [(i, 3.0 / i) for i in (10, 20, 30, 40)]
    assert curve(client, train.info.run_id, "validation/miou") == [(40, 0.5)]
    assert evaluate.data.metrics["iou_ms_flip/zero"] == 1.0
    assert "iou_ms_flip/nine" not in evaluate.data.metrics  # occurs nowhere
    assert parent.data.metrics["miou_ms_flip"] == 0.6
    assert (parent.data.metrics["miou_low_ms_flip"], parent.data.metrics["miou_high_ms_flip"]) == (0.55, 0.65)
    assert parent.data.metrics["training_loss"] == 0.075
    assert parent.data.metrics["miou_validation"] == 0.5
    assert {"history.csv", "summary.json", "config.yaml"} <= artifacts(client, train.info.run_id)
    assert "predictions/scene__1.png" in artifacts(client, evaluate.info.run_id, "predictions")
    assert parent.data.tags["model_id"] == train.data.tags["model_id"]
    measured = {m.key: m for m in client.get_logged_model(parent.data.tags["model_id"]).metrics}
    assert (measured["miou_ms_flip"].value, measured["miou_ms_flip"].dataset_name) == (0.6, "digits")

    loaded = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import mlflow, torch\n"
            f"mlflow.set_tracking_uri({tracking_uri(root)!r})\n"
            f"for uri in ('runs:/{train.info.run_id}/model', 'models:/{train.data.tags['model_id']}'):\n"
            "    model = mlflow.pytorch.load_model(uri)\n"
            "    print(type(model).__name__, tuple(model(torch.zeros(1, 3, 32, 32)).logits.shape), model.training)\n",
        ],
        cwd=root,  # a folder without a `pipeline` package
        text=True,
        capture_output=True,
    )
    expected = "Segmentor (1, 11, 4, 4) False\n"
    assert loaded.stdout == 2 * expected, loaded.stderr


def test_intervals_in_the_record_and_in_mlflow_are_those_of_the_statistics(
    prepared_project: Path, tmp_path: Path
) -> None:
    root = copy_prepared(prepared_project, tmp_path / "project")
    benchmark = load_resolved(Layout(root).resolved_for("evaluate", "tiny-fcn"))
    write_training(root, benchmark)
    runtime = RuntimeConfig(device="cpu", workers=0)
    with stage_run(root, benchmark, 0, "evaluate-msflip", runtime):
        evaluate_benchmark(root, benchmark, 0, runtime)
    files = EvaluationFiles(Layout(root), benchmark.id, 0)
    (tracked,) = runs_of(load_mlflow().MlflowClient(tracking_uri=tracking_uri(root)), "evaluate-msflip")
    ids, counts = files.counts
    blocks = frame_blocks(ids, get_dataset("digits").frames_per_block)
    for protocol in PROTOCOLS:
        expected = scores(Counts.of_seeds([counts[protocol]]), blocks).mean()
        record, metrics = files.record.scores[protocol], tracked.data.metrics
        assert (record.miou_low, record.miou_high) == (expected.low, expected.high)
        assert (metrics[f"miou_low_{protocol}"], metrics[f"miou_high_{protocol}"]) == (expected.low, expected.high)
        near = scores(Counts.of_seeds([counts[BOUNDARY[protocol]]]), blocks).mean()
        assert record.boundary_miou == metrics[f"boundary_miou_{protocol}"] == pytest.approx(near.value)
        assert 0 < record.boundary_miou < record.miou


def test_ui_is_offered_the_snippet_that_works(root: Path, client: Any, benchmark: Benchmark) -> None:
    """The UI shows `mlflow.pytorch.load_model` only for a model without MLflow's generic flavour."""
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        model_id = log_model(run.run_id, nn.Conv2d(3, 2, 1))
    mlflow = load_mlflow()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_uri(root))
    assert list(mlflow.models.get_model_info(f"models:/{model_id}").flavors) == ["pytorch"]
    assert mlflow.pytorch.load_model(f"models:/{model_id}")(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    mlflow.set_tracking_uri(before)


def test_store_that_fails_midway_costs_one_warning_and_sync_repairs_it(
    root: Path, client: Any, benchmark: Benchmark, caplog: pytest.LogCaptureFixture
) -> None:
    database = root / "mlflow.db"
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        backup = database.read_bytes()
        database.write_bytes(b"no database" * 1000)
        for step, values in training_points():
            run.log(step, values)
        write_training(root, benchmark)
    warnings = [record for record in caplog.records if "python -m pipeline sync" in record.getMessage()]
    assert len(warnings) == 1
    database.write_bytes(backup)
    assert len(sync(root)) == 1
    broken, restored = sorted(runs_of(client, "train"), key=lambda run: "restored" in run.data.tags)
    assert broken.data.tags["superseded_by"] == restored.info.run_id
    assert len(curve(client, restored.info.run_id, "train/loss")) == 4


def test_sync_gives_runs_to_results_from_the_cache_once(root: Path, client: Any, benchmark: Benchmark) -> None:
    write_training(root, benchmark)
    write_evaluation(root, benchmark)
    assert [line.partition(":")[0] for line in sync(root)] == ["train tiny seed 0", "evaluate-msflip tiny seed 0"]
    assert sync(root) == []
    (parent,) = runs_of(client, "parent")
    (train,), (evaluate,) = runs_of(client, "train"), runs_of(client, "evaluate-msflip")
    assert all(run.data.tags["restored"] == "true" for run in (parent, train, evaluate))
    assert all(run.info.status == "FINISHED" for run in (parent, train, evaluate))
    assert (train.info.end_time - train.info.start_time) == 60_000
    assert train.data.tags["git_commit"] == "c0ffee"
    assert train.data.params["runtime.precision"] == "float32"
    assert [step for step, _ in curve(client, train.info.run_id, "train/loss")] == [10, 20, 30, 40]
    assert evaluate.data.metrics["miou_ms_flip"] == parent.data.metrics["miou_ms_flip"] == 0.6


def test_sync_names_the_file_that_a_result_lacks(root: Path, benchmark: Benchmark) -> None:
    (write_training(root, benchmark) / "cost.json").unlink()
    with pytest.raises(PipelineError, match=r"cost\.json: no such file; rerun the stage train of tiny, seed 0"):
        sync(root)


def test_another_protocol_is_another_evaluation_of_the_same_training(
    root: Path, client: Any, benchmark: Benchmark
) -> None:
    write_training(root, benchmark)
    write_evaluation(root, benchmark)
    sync(root)
    shutil.rmtree(Layout(root).evaluate(benchmark.id, 0))
    inference = benchmark.inference.model_copy(update={"ms_flip": benchmark.inference.single_scale})
    write_evaluation(root, benchmark.model_copy(update={"inference": inference}))
    assert [line.partition(":")[0] for line in sync(root)] == ["evaluate-msflip tiny seed 0"]
    assert not any("superseded_by" in run.data.tags for run in runs_of(client, "evaluate-msflip"))
    assert len(runs_of(client, "parent")) == 1


def test_tracking_can_be_switched_off(tmp_path: Path, benchmark: Benchmark) -> None:
    with stage_run(tmp_path, benchmark, 0, "train", RuntimeConfig(mlflow=False)) as run:
        run.log(*training_points()[0])
    assert list(tmp_path.iterdir()) == []


def test_more_points_and_longer_values_than_one_request_takes(
    root: Path, client: Any, benchmark: Benchmark, tiny: dict[str, Any]
) -> None:
    tiny["segmentor"]["options"] = {"dilations": list(range(3000)), **{f"o{i}": i for i in range(250)}}
    long = parse(Benchmark, {"id": "long", **tiny}, "long")
    with stage_run(root, long, 0, "train", RUNTIME) as run:
        run._next_request = float("inf")  # until the end
        for step in range(1, 1300):
            run.log(step, {"train/loss": 1.0 / step})
    (train,) = runs_of(client, "train")
    assert len(curve(client, train.info.run_id, "train/loss")) == 1299
    assert train.data.params["segmentor.options.dilations"].startswith("[0, 1, 2")
    assert all(train.data.params[f"segmentor.options.o{i}"] == str(i) for i in range(250))


def test_parameters_read_as_in_yaml(tiny: dict[str, Any]) -> None:
    tiny["segmentor"]["options"] = {"a": "sgd", "b": None, "c": (512, 512), "d": True}
    flat = flat_parameters(parse(Benchmark, {"id": "tiny", **tiny}, "tiny"), with_evaluation=False)
    assert [flat[f"segmentor.options.{key}"] for key in "abcd"] == ["sgd", "null", "[512, 512]", "true"]


def test_a_stage_that_could_not_begin_does_not_keep_the_next_one_from_it(
    root: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PipelineError("database is locked")

    with monkeypatch.context() as broken, pytest.raises(PipelineError, match="database is locked"):
        broken.setattr("pipeline.tracking.runs.describe", refused)
        with stage_run(root, benchmark, 0, "train", RUNTIME):
            pytest.fail("must not begin")
    with stage_run(root, benchmark, 0, "train", RUNTIME):
        write_training(root, benchmark)


def test_a_restored_run_has_the_parameters_of_the_one_that_was_tracked_live(
    root: Path, client: Any, benchmark: Benchmark
) -> None:
    with stage_run(root, benchmark, 0, "train", RuntimeConfig(device="auto")):
        write_training(root, benchmark)
    (live,) = runs_of(client, "train")
    client.set_tag(live.info.run_id, "complete", "false")
    sync(root)
    (restored,) = (run for run in runs_of(client, "train") if "restored" in run.data.tags)
    assert restored.data.params == live.data.params
