"""Studies, really trained: each variant is run once and kept as small files that make the report by themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.project import edit_yaml, write_yaml
from helpers.small_study import STUDY, changed
from pipeline.planning.run_study import Outcome, run_study
from pipeline.results.bootstrap import block_weights
from pipeline.results.stored import late_loss, read_stored, result_file

from pipeline.config import config_hash, load_project
from pipeline.config.study import load_plan
from pipeline.errors import PipelineError
from pipeline.files.locks import claimed, exclusive
from pipeline.reporting.study_analysis import StudyAnalysis, frame_blocks
from pipeline.reporting.study_report import write_study_report


@pytest.fixture(scope="module")
def finished(prepared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the study was run to its end."""
    root = tmp_path_factory.mktemp("study") / "project"
    shutil.copytree(prepared_project, root)
    write_yaml(root / "studies" / "try.yaml", STUDY)
    run_all(root)
    return root


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(finished, tmp_path / "project", dirs_exist_ok=True)
    return tmp_path / "project"


def run_all(root: Path, **options: int) -> int:
    done, failed = run_with_failures(root, **options)
    assert failed == []
    return done


def run_with_failures(root: Path, **options: int) -> Outcome:
    project = load_project(root)
    plan = load_plan(root, "try", "short")
    return run_study(
        root, plan, project.runtime, project.sources, "python -m pipeline study try --size short", **options
    )


def test_every_run_leaves_its_scores_and_its_counts(finished):
    plan = load_plan(finished, "try", "short")
    stored, foreign = read_stored(finished, plan)
    assert [(run.variant, run.seed) for run in stored] == list(plan.runs)
    assert not foreign
    for run in stored:
        counts = run.counts["ms_flip"]
        total = [part.sum(axis=0).astype(float) for part in counts]
        union = total[1] + total[2] - total[0]
        assert np.nanmean(total[0] / np.where(union > 0, union, np.nan)) == pytest.approx(
            run.record["scores"]["ms_flip"]["miou"], abs=1e-6
        )
        assert run.record["config_hash"] == config_hash(plan.benchmarks[run.variant])


def test_a_finished_study_runs_nothing_again(finished):
    before = {path: path.read_bytes() for path in (finished / "reports" / "try").rglob("*.json")}
    assert run_all(finished) == 0
    assert before == {path: path.read_bytes() for path in (finished / "reports" / "try").rglob("*.json")}


def test_only_the_variant_that_was_changed_is_run_again(study):
    write_yaml(study / "studies" / "try.yaml", changed("variants.memory.set", {"memory": {"momentum": 0.5}}))
    plan = load_plan(study, "try", "short")
    stored, foreign = read_stored(study, plan)
    assert [run.variant for run in stored] == ["plain"]  # `random` is made of `memory`
    assert foreign == ["memory-0", "random-0"]
    assert run_all(study, at_most=1) == 1
    assert [run.variant for run in read_stored(study, plan)[0]] == ["plain", "memory"]


def test_another_test_protocol_evaluates_again_and_trains_nothing(study):
    write_yaml(study / "studies" / "try.yaml", changed("sizes.short.set.inference.ms_flip.scales", [1.0, 1.5]))
    plan = load_plan(study, "try", "short")
    assert read_stored(study, plan) == ([], ["plain-0", "memory-0", "random-0"])
    weights = study / "runs" / "train" / "try-short-plain" / "0" / "last.safetensors"
    before = weights.stat().st_mtime_ns
    assert run_all(study, at_most=1) == 1
    assert [run.variant for run in read_stored(study, plan)[0]] == ["plain"]
    assert weights.stat().st_mtime_ns == before


def test_an_interrupted_evaluation_does_not_train_again(study, monkeypatch):
    result_file(study, load_plan(study, "try", "short"), "plain", 0).unlink()
    weights = study / "runs" / "train" / "try-short-plain" / "0" / "last.safetensors"
    before = weights.stat().st_mtime_ns

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.planning.run_study.evaluate_benchmark", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_all(study)
    assert run_all(study) == 1
    assert weights.stat().st_mtime_ns == before


def test_a_run_that_fails_does_not_keep_the_others_from_their_turn(study):
    broken = {"memory": {}, "schedule": {"batch_size": 5000}}
    write_yaml(study / "studies" / "try.yaml", changed("variants.memory.set", broken))
    plan = load_plan(study, "try", "short")
    result_file(study, plan, "random", 0).unlink()
    outcome = run_with_failures(study)  # `random` is made of `memory`
    assert outcome.done == 0
    assert [line.partition(":")[0] for line in outcome.failed] == ["memory, seed 0", "random, seed 0"]
    assert "schedule.batch_size: 5000 is larger than the training split" in outcome.failed[0]
    assert [run.variant for run in read_stored(study, plan)[0]] == ["plain"]


def test_shells_that_end_together_write_the_report_one_after_the_other(study):
    command = [sys.executable, "-m", "pipeline", "study", "try", "--size", "short"]
    lock = exclusive(study / "runs" / "studies" / "try-short-report")
    with subprocess.Popen(command, cwd=study, stderr=subprocess.PIPE, text=True) as shell, lock:
        assert shell.stderr is not None
        assert any("another process works here; waiting for it" in line for line in shell.stderr)
        assert shell.poll() is None
    assert shell.returncode == 0


def test_the_random_memory_is_that_of_the_first_iteration(finished):
    with np.load(finished / "runs" / "train" / "try-short-random" / "0" / "memory.npz") as arrays:
        assert np.array_equal(arrays["first_epoch"], arrays["final"])
        assert (arrays["final"] >= 0).all()
        assert arrays["final"].any()


def test_the_report_is_made_from_the_stored_results_alone(finished, tmp_path):
    for name in ("studies", "params", "reports"):
        shutil.copytree(finished / name, tmp_path / name)
    out = write_study_report(tmp_path, load_plan(tmp_path, "try", "short"))
    pages = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert set(pages) == {"report.md", "report.html", "results.csv"}
    write_study_report(tmp_path, load_plan(tmp_path, "try", "short"))
    assert pages == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_the_report_says_what_was_compared_and_what_is_missing(study):
    plan = load_plan(study, "try", "short")
    result_file(study, plan, "random", 0).unlink()
    text = (write_study_report(study, plan) / "report.md").read_text(encoding="utf-8")
    assert "2 of 3 planned trainings" in text
    assert "What does the memory add?" in text
    assert "FCN → FCN + memory" in text
    assert "Not run: `random` seed 0." in text
    assert "Not run yet: FCN → random." in text


def test_the_gain_of_the_report_is_the_difference_of_the_stored_scores(finished):
    plan = load_plan(finished, "try", "short")
    stored, _ = read_stored(finished, plan)
    analysis = StudyAnalysis(plan, tuple(stored), (), ())
    scores = {run.variant: run.record["scores"]["ms_flip"]["miou"] for run in stored if run.seed == 0}
    gain = analysis.gain(("plain", "memory"), "ms_flip")
    assert gain.value == pytest.approx(scores["memory"] - scores["plain"], abs=1e-9)
    assert gain.low <= gain.value <= gain.high
    pooled = analysis.pooled(plan.config.comparisons["memory"], "ms_flip")
    assert pooled.value == pytest.approx(gain.value)  # of a single pair


def test_results_of_other_data_are_no_comparison(study):
    plan = load_plan(study, "try", "short")
    path = result_file(study, plan, "memory", 0)
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"data_fingerprint": "another"}), encoding="utf-8")
    with pytest.raises(PipelineError, match=r"memory-0\.json: measured on other data than plain-0"):
        read_stored(study, plan)


def test_a_study_that_compares_nothing_names_the_best_of_each_group_on_validation(study):
    note = "Chosen by nobody."
    write_yaml(study / "studies" / "try.yaml", changed("comparisons", {}) | {"sizes": noted(note)})
    plan = load_plan(study, "try", "short")
    for variant, miou in (("plain", 0.25), ("memory", 0.75), ("random", 0.5)):
        path = result_file(study, plan, variant, 0)
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(record | {"validation": {"miou": miou}}), encoding="utf-8")
    text = (write_study_report(study, plan) / "report.md").read_text(encoding="utf-8")
    assert "- *all*: `memory` (FCN + memory), **75.00 %**" in text
    assert "- *extra*: `random` (random), **50.00 %**" in text
    assert note in text
    assert "Class by class" not in text


def noted(note: str) -> dict:
    """The sizes of STUDY, with a word on how their settings were chosen."""
    return {"short": STUDY["sizes"]["short"] | {"note": note}}


def test_the_training_loss_is_that_of_the_final_logits_late_in_the_training(finished):
    history = finished / "runs" / "curves" / "try-short-memory" / "0" / "history.csv"
    curve = pd.read_csv(history)
    late = curve[curve["iteration"] > 0.75 * curve["iteration"].max()]["loss_final"].mean()
    stored, _ = read_stored(finished, load_plan(finished, "try", "short"))
    (loss,) = (run.record["training_loss"] for run in stored if run.variant == "memory")
    assert loss == pytest.approx(late, abs=1e-4)
    report = (write_study_report(finished, load_plan(finished, "try", "short")) / "report.md").read_text("utf-8")
    assert f"| {loss:.3f} |" in report


def test_the_late_loss_leaves_the_first_three_quarters_out(tmp_path):
    pd.DataFrame({"iteration": [10, 20, 30, 40], "loss_final": [9.0, 8.0, 7.0, 0.5]}).to_csv(tmp_path / "h.csv")
    assert late_loss(tmp_path / "h.csv") == 0.5


def test_two_shells_never_work_on_the_same_run(study):
    plan = load_plan(study, "try", "short")
    result_file(study, plan, "random", 0).unlink()
    with claimed(study / "runs" / "studies" / "claims" / "try-short-random-0") as mine:
        assert mine
        assert run_all(study) == 0
    assert run_all(study) == 1


def test_a_study_without_results_says_how_to_get_some(project):
    write_yaml(project / "studies" / "try.yaml", STUDY)
    with pytest.raises(PipelineError, match="no result of this configuration; run `python -m pipeline study try"):
        write_study_report(project, load_plan(project, "try", "short"))


def test_weights_that_would_have_to_be_downloaded_are_refused_before_any_work(study):
    edit_yaml(study / "params" / "tiny-fcn.yaml", encoder={"name": "tu-resnet50c", "weights": "imagenet:resnet50_v1c"})
    with pytest.raises(PipelineError, match=r"encoder\.weights: imagenet:resnet50_v1c has to be downloaded"):
        run_all(study)


def test_several_devices_are_refused_because_shells_share_the_runs(study):
    edit_yaml(study / "params.yaml", runtime={"devices": 2})
    with pytest.raises(PipelineError, match=r"runtime\.devices: 2, .* start the same command once per GPU"):
        run_all(study)


def test_the_command_prints_the_plan_and_what_is_stored(finished):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "study", "try", "--size", "short", "--dry-run"],
        cwd=finished,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "stored  plain, seed 0" in done.stdout
    assert "3 of 3 results in reports/try/short/runs, 0 to run" in done.stdout


def test_blocks_are_neighbours_of_one_sequence():
    ids = ["a_1", "a_2", "a_3", "b_1", "b_2"]
    assert frame_blocks(ids, 2).tolist() == [0, 0, 1, 2, 2]


def test_frames_of_a_block_are_resampled_together():
    blocks = np.array([0, 0, 1, 2, 2])
    weights = block_weights(blocks, samples=50)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 0] != weights[:, 2]).any()
