"""The command `study`, with real trainings: each run once, kept as a record that makes the report by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.project import edit_yaml, write_yaml
from helpers.small_study import STUDY, changed
from safetensors.torch import load_file

from pipeline.config import load_project
from pipeline.config.study import load_plan
from pipeline.errors import PipelineError
from pipeline.files.locks import claimed, exclusive
from pipeline.files.storage import file_digest
from pipeline.layout import Layout
from pipeline.planning.studies import is_recorded, run_study
from pipeline.results.record import TrainingFiles
from pipeline.results.run import read_record, record_path

COMMAND = "python -m pipeline study try --size short"


@pytest.fixture(scope="module")
def finished(prepared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the study was run to its end."""
    root = tmp_path_factory.mktemp("study") / "project"
    shutil.copytree(prepared_project, root)  # with the raw data, which a study asks for
    write_yaml(root / "studies" / "try.yaml", STUDY)
    assert run(root) == []
    return root


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(finished, tmp_path / "project", dirs_exist_ok=True)
    return tmp_path / "project"


def run(root: Path, at_most: int | None = None) -> list[str]:
    """Run what has no record; returns the failures."""
    return run_study(root, load_plan(root, "try", "short"), load_project(root), COMMAND, at_most)


def recorded(root: Path) -> list[str]:
    """Variants with a record of the present configuration."""
    plan = load_plan(root, "try", "short")
    return [variant for variant, seed in plan.runs if is_recorded(root, plan, variant, seed)]


def record(root: Path, variant: str) -> Path:
    return record_path(load_plan(root, "try", "short").records(root), variant, 0)


def weights(root: Path, variant: str) -> Path:
    return root / "runs" / "train" / f"try-short-{variant}" / "0" / "last.safetensors"


def test_every_run_leaves_its_scores_and_counts_that_agree(finished: Path) -> None:
    plan = load_plan(finished, "try", "short")
    for variant, seed in plan.runs:
        found = read_record(plan.records(finished), variant, seed)
        assert found is not None
        assert found.is_of(plan.benchmarks[variant])
        assert np.nanmean(found.class_iou("ms_flip")) == pytest.approx(found.scores["ms_flip"].miou, abs=1e-9)
        assert found.command == COMMAND


def test_only_a_changed_variant_and_those_made_of_it_run_again(study: Path) -> None:
    write_yaml(study / "studies" / "try.yaml", changed("variants.memory.set", {"memory": {"momentum": 0.5}}))
    assert recorded(study) == ["plain"]  # `random` is made of `memory`
    assert run(study, at_most=1) == []
    assert recorded(study) == ["plain", "memory"]


def test_another_test_protocol_evaluates_again_and_trains_nothing(study: Path) -> None:
    write_yaml(study / "studies" / "try.yaml", changed("sizes.short.set.inference.ms_flip.scales", [1.0, 1.5]))
    assert recorded(study) == []
    before = weights(study, "plain").stat().st_mtime_ns
    assert run(study, at_most=1) == []
    assert recorded(study) == ["plain"]
    assert weights(study, "plain").stat().st_mtime_ns == before


def test_an_interrupted_evaluation_does_not_train_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(study, "plain").unlink()
    before = weights(study, "plain").stat().st_mtime_ns

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.evaluation.score.evaluate_benchmark", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(study)
    assert run(study) == []
    assert weights(study, "plain").stat().st_mtime_ns == before


def test_a_warm_start_begins_with_the_weights_that_another_variant_ends_with(study: Path) -> None:
    warm = {"group": "all", "title": "warm", "of": "memory", "start": "plain"}
    warm["set"] = {"memory": {"fusion": "residual"}, "optimizer": {"lr": 1e-9, "weight_decay": 0.0}}
    write_yaml(study / "studies" / "try.yaml", changed("variants.warm", warm))
    weights(study, "plain").with_name("summary.json").unlink()  # trained on another machine, only its record is here
    assert run(study) == []
    before, after = (load_file(weights(study, name)) for name in ("plain", "warm"))
    shared = {name for name in before if "running" not in name and "num_batches" not in name}
    assert {name.partition(".")[0] for name in shared} >= {"encoder", "pixel_representation", "final_decoder"}
    for name in shared:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-5)
    digest = file_digest(weights(study, "plain"))
    assert TrainingFiles(Layout(study), "try-short-warm", 0).record.weights == digest


def test_a_run_that_fails_does_not_keep_the_others_from_their_turn(study: Path) -> None:
    broken = {"memory": {}, "schedule": {"batch_size": 5000}}
    write_yaml(study / "studies" / "try.yaml", changed("variants.memory.set", broken))
    record(study, "random").unlink()
    failed = run(study)  # `random` is made of `memory`
    assert [line.partition(":")[0] for line in failed] == ["memory, seed 0", "random, seed 0"]
    assert "schedule.batch_size: 5000 is larger than the training split" in failed[0]
    assert recorded(study) == ["plain"]


def test_shells_that_end_together_write_the_report_one_after_the_other(study: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "study", "try", "--size", "short"]
    lock = exclusive(study / "runs" / "studies" / "try-short-report")
    with subprocess.Popen(command, cwd=study, stderr=subprocess.PIPE, text=True) as shell, lock:
        assert shell.stderr is not None
        assert any("another process works here" in line for line in shell.stderr)
        assert shell.poll() is None
    assert shell.returncode == 0


def test_the_random_memory_is_that_of_the_first_iteration(finished: Path) -> None:
    with np.load(weights(finished, "random").with_name("memory.npz")) as arrays:
        assert np.array_equal(arrays["first_epoch"], arrays["final"])
        assert (arrays["final"] >= 0).all()
        assert arrays["final"].any()


def test_two_shells_never_work_on_the_same_run(study: Path) -> None:
    record(study, "random").unlink()
    with claimed(study / "runs" / "studies" / "claims" / "try-short-random-0") as mine:
        assert mine
        assert run(study) == []
        assert "random" not in recorded(study)
    assert run(study) == []
    assert "random" in recorded(study)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "params/tiny-fcn.yaml",
            {"encoder": {"name": "tu-resnet50c", "weights": "imagenet:resnet50_v1c"}},
            r"encoder\.weights: imagenet:resnet50_v1c has to be downloaded",
        ),
        ("params.yaml", {"runtime": {"devices": 2}}, r"runtime\.devices: 2, .* start the same command once per GPU"),
    ],
)
def test_what_a_study_cannot_run_is_refused_before_any_work(study: Path, file: str, change, message: str) -> None:
    edit_yaml(study / file, **change)
    with pytest.raises(PipelineError, match=message):
        run(study)


def test_report_only_writes_the_report_of_what_is_there_and_runs_nothing(study: Path) -> None:
    record(study, "random").unlink()
    command = [sys.executable, "-m", "pipeline", "study", "try", "--size", "short", "--report-only"]
    subprocess.run(command, cwd=study, check=True, capture_output=True)
    assert "FCN + memory" in (load_plan(study, "try", "short").folder(study) / "report.md").read_text()
    assert recorded(study) == ["plain", "memory"]


def test_a_dry_run_prints_every_run_and_whether_it_is_recorded(finished: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "study", "try", "--size", "short", "--dry-run"]
    done = subprocess.run(command, cwd=finished, check=True, capture_output=True, text=True)
    assert "recorded  plain, seed 0" in done.stdout
    assert "3 recorded, 0 to run" in done.stdout
