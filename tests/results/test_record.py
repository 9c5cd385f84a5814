"""Result files: what was written is read back, and what is missing or does not belong together is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_results import benchmark, row, write_results
from helpers.project import edit_arrays, edit_json, edit_yaml

from pipeline.config import load_resolved
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.results.record import PROBES, EvaluationFiles, TrainingFiles, finished_trainings
from pipeline.results.run import Run, keep_record, read_record, read_run, record_path, result_table

MEMORY, PLAIN = "camvid-fcn-mcibi", "camvid-fcn"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of FCN with and without memory, one seed; not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    write_results(root, seeds=(0,), images=8, benchmarks=[benchmark("fcn", memory) for memory in (False, True)])
    return root


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of them to change."""
    return shutil.copytree(finished, tmp_path / "root")


def _read(root: Path, name: str = MEMORY) -> Run:
    layout = Layout(root)
    return read_run(layout, load_resolved(layout.resolved(name)), 0)


# Round trips


def test_a_training_is_read_as_it_was_written(finished: Path, tmp_path: Path) -> None:
    files = TrainingFiles(Layout(finished), MEMORY, 0)
    copy = TrainingFiles(Layout(tmp_path), MEMORY, 0)
    copy.write(
        files.config,
        files.record,
        files.cost,
        files.memory,
        files.history.to_dict("records"),
        files.validation.to_dict("records"),
    )
    for name in ("summary.json", "cost.json", "config.yaml"):
        assert (copy.folder / name).read_bytes() == (files.folder / name).read_bytes()
    assert (copy.record, copy.cost, copy.config) == (files.record, files.cost, files.config)
    assert copy.history.equals(files.history)
    assert copy.validation.equals(files.validation)
    assert np.array_equal(copy.memory.final, files.memory.final)
    assert np.array_equal(copy.memory.first_epoch, files.memory.first_epoch)


def test_an_evaluation_is_read_as_it_was_written(finished: Path, tmp_path: Path) -> None:
    files, copy = (EvaluationFiles(Layout(root), MEMORY, 0) for root in (finished, tmp_path))
    ids, counts = files.counts
    copy.write(files.record, files.cost, get_dataset("camvid").classes, ids, counts, files.confusion, files.probes)
    assert (copy.record, copy.cost) == (files.record, files.cost)
    assert copy.counts[0] == ids
    assert all(map(np.array_equal, copy.counts[1]["ms_flip"], counts["ms_flip"]))
    assert np.array_equal(copy.confusion["single_scale"], files.confusion["single_scale"])
    assert set(copy.probes) == set(PROBES)
    assert all(map(np.array_equal, copy.probes["shuffled"], files.probes["shuffled"]))
    copy.require_consistent()


def test_an_import_has_no_curves_and_no_first_memory(tmp_path: Path) -> None:
    write_results(tmp_path, seeds=(0,), images=8, benchmarks=[row()])
    files = TrainingFiles(Layout(tmp_path), "camvid-row", 0)
    assert files.memory.first_epoch is None
    assert files.history.empty
    assert files.record.final is None
    assert _read(tmp_path, "camvid-row").validation_miou is None


def test_a_record_in_git_holds_the_run(finished: Path, tmp_path: Path) -> None:
    run = _read(finished)
    keep_record(run, tmp_path, "a command", get_dataset("camvid").classes)
    kept = read_record(tmp_path, MEMORY, 0)
    assert kept is not None
    assert kept.command == "a command"
    same = ("config_hash", "evaluation_hash", "scores", "ids", "training_loss", "validation_miou", "validation_curve")
    for name in (*same, "hardware", "flops"):
        assert getattr(kept, name) == getattr(run, name), name
    assert np.array_equal(kept.class_iou("ms_flip"), run.class_iou("ms_flip"))
    assert all(map(np.array_equal, kept.probes["shuffled"], run.probes["shuffled"]))
    assert all(map(np.array_equal, kept.counts["ms_flip_boundary"], run.counts["ms_flip_boundary"]))
    assert kept.probes.keys() == run.probes.keys()
    assert kept.attention_entropy == run.attention_entropy != {}
    assert kept.is_of(load_resolved(Layout(finished).resolved(MEMORY)))
    table = result_table([kept], get_dataset("camvid").classes)
    assert table["ms_flip_miou"].item() == round(run.scores["ms_flip"].miou, 6)


def test_only_complete_trainings_count_as_finished(results: Path) -> None:
    assert [files.benchmark for files in finished_trainings(Layout(results))] == [PLAIN, MEMORY]
    (Layout(results).train(PLAIN, 0) / "summary.json").unlink()
    assert [files.benchmark for files in finished_trainings(Layout(results))] == [MEMORY]


# Refusals: each names the file and the stage to run again

TRAIN, EVALUATE = (f"{stage} of {MEMORY}, seed 0: `dvc repro`" for stage in ("train", "evaluate-msflip"))


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (f"runs/train/{MEMORY}/0/summary.json", TRAIN),
        (f"runs/train/{MEMORY}/0/cost.json", TRAIN),
        (f"runs/evaluate/{MEMORY}/0/metrics.json", EVALUATE),
        (f"runs/evaluate/{MEMORY}/0/details/evaluation.json", EVALUATE),
        (f"runs/evaluate/{MEMORY}/0/details/per_image.npz", EVALUATE),
        (f"runs/evaluate/{MEMORY}/0/details/confusion.npz", EVALUATE),
    ],
)
def test_a_missing_or_damaged_file_is_named(results: Path, path: str, stage: str) -> None:
    (results / path).write_text("{")
    with pytest.raises(PipelineError, match=f"{re.escape(path)}: cannot be read .*; rerun the stage {stage}"):
        _read(results)
    (results / path).unlink()
    with pytest.raises(PipelineError, match=f"{re.escape(path)}: no such file; rerun the stage {stage}"):
        _read(results)


def test_a_curve_that_has_no_column_is_refused_rather_than_left_out(results: Path) -> None:
    files = TrainingFiles(Layout(results), MEMORY, 0)
    rows = [{"iteration": 1, "loss_context": 0.5}]
    files.write(files.config, files.record, files.cost, None, rows, [])
    assert TrainingFiles(Layout(results), MEMORY, 0).history["loss_context"].tolist() == [0.5]
    with pytest.raises(ValueError, match=r"history\.csv: no column for loss_new"):
        files.write(files.config, files.record, files.cost, None, [rows[0] | {"loss_new": 0.5}], [])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"], ids=["empty", "cut off"])
def test_damaged_arrays_are_named(finished: Path, results: Path, tmp_path: Path, content: bytes) -> None:
    arrays = EvaluationFiles(Layout(results), MEMORY, 0).details / "per_image.npz"
    arrays.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"per_image\.npz: cannot be read .*{EVALUATE}"):
        _read(results)
    path = keep_record(_read(finished), tmp_path, "a command", get_dataset("camvid").classes)
    path.with_suffix(".npz").write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{re.escape(path.name)}: damaged record, .*restore it from Git"):
        read_record(tmp_path, MEMORY, 0)


def _another_plan(root: Path) -> None:
    edit_yaml(Layout(root).resolved(MEMORY), optimizer={"lr": 0.5})


def _another_training(root: Path) -> None:
    edit_json(EvaluationFiles(Layout(root), MEMORY, 0).details / "evaluation.json", run_key="0" * 12)


def _other_data(root: Path) -> None:
    edit_json(Layout(root).prepared("camvid") / "dataset.json", fingerprint="other")


def _another_mode(root: Path) -> None:
    edit_json(TrainingFiles(Layout(root), MEMORY, 0).folder / "summary.json", mode="import")


def _another_split(root: Path) -> None:
    files = EvaluationFiles(Layout(root), MEMORY, 0)
    for path in (files.folder / "metrics.json", files.details / "evaluation.json"):
        edit_json(path, split="val")


def _another_score(root: Path) -> None:
    path = EvaluationFiles(Layout(root), MEMORY, 0).folder / "metrics.json"
    edit_json(path, ms_flip=json.loads(path.read_text())["ms_flip"] | {"miou": 0.99})


def _another_matrix(root: Path) -> None:
    path = EvaluationFiles(Layout(root), MEMORY, 0).details / "confusion.npz"
    with np.load(path) as archive:
        turned = archive["ms_flip"].T
    edit_arrays(path, ms_flip=turned)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_another_plan, rf"summary\.json: config_hash is .*, but the plan says .*; rerun the stage {TRAIN}"),
        (_another_mode, r"summary\.json: mode is 'import', but the plan says 'train'"),
        (_other_data, r"summary\.json: data_fingerprint is .*, but the prepared data says 'other'"),
        (_another_training, rf"evaluation\.json: run_key is '0+', but the training's summary.json .*{EVALUATE}"),
        (_another_split, r"evaluation\.json: split is 'val', but the plan says 'test'"),
        (_another_score, r"per_image\.npz: ms_flip\.miou is 0\.\d+, but metrics\.json says 0\.99"),
        (_another_matrix, rf"confusion\.npz: ms_flip: other pixel counts than per_image\.npz; .*{EVALUATE}"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    results: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(results)
    with pytest.raises(PipelineError, match=message):
        _read(results)


def test_a_record_without_its_counts_is_named(finished: Path, tmp_path: Path) -> None:
    path = keep_record(_read(finished), tmp_path, "a command", get_dataset("camvid").classes)
    path.with_suffix(".npz").unlink()
    with pytest.raises(PipelineError, match=rf"{re.escape(path.name)}: damaged record, .*restore it from Git"):
        read_record(tmp_path, MEMORY, 0)
    record_path(tmp_path, MEMORY, 0).unlink()
    assert read_record(tmp_path, MEMORY, 0) is None
