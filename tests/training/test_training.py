"""Training: identical after a real kill, whatever the moment; what it writes; how it fails."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.model_benchmarks import train_tiny
from helpers.project import copy_prepared, edit_yaml
from safetensors.numpy import load_file

from pipeline.config import load_project, load_resolved
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.runtime.distributed import Ranks
from pipeline.training.losses import median_frequency
from pipeline.training.state import random_state, restore_random_state
from pipeline.training.step import Trainer
from pipeline.training.train import _build, is_trained

BENCHMARK = "tiny-fcn-mcibi"
BRIEF = {"epochs": 1, "batch_size": 300}


def start(root: Path, seed: int = 0) -> BaseProcess:
    """A process of its own that trains; forked, so that it need not import torch again."""

    def work() -> None:
        torch.set_num_threads(1)
        train_tiny(root, seed)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def train(root: Path, seed: int = 0) -> None:
    """Train to the end."""
    process = start(root, seed)
    process.join()
    assert process.exitcode == 0


def edit_plan(root: Path, **changes: Any) -> None:
    edit_yaml(root / "runs" / "plan" / "train" / f"{BENCHMARK}.yaml", **changes)


@pytest.fixture
def brief(trainable: Path) -> Path:
    """A project ready for a training of four iterations."""
    edit_plan(trainable, schedule=BRIEF)
    return trainable


@pytest.fixture(scope="module")
def uninterrupted(prepared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which tiny-fcn-mcibi was trained from start to end."""
    root = copy_prepared(prepared_project, tmp_path_factory.mktemp("uninterrupted") / "project")
    train(root)
    return root


@pytest.fixture(scope="module")
def briefly_trained(prepared_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the training of four iterations is done."""
    root = copy_prepared(prepared_project, tmp_path_factory.mktemp("brief") / "project")
    edit_plan(root, schedule=BRIEF)
    train(root)
    return root


def results(root: Path, seed: int = 0) -> Path:
    return root / "runs" / "train" / BENCHMARK / str(seed)


def interrupt(root: Path, iterations: int, number: signal.Signals) -> int:
    """Train until the saved state is past `iterations`, then send `number`; returns the exit status."""
    process = start(root)
    states = root / "runs" / "state" / BENCHMARK
    seen: set[float] = set()
    while process.is_alive() and len(seen) < iterations // 3:
        seen |= {path.stat().st_mtime_ns for path in states.glob("*/state.pt")}
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.join(timeout=60)
    return process.exitcode


def resumed_after(said: str) -> list[int]:
    """Iterations that trainings did not repeat, by what they said."""
    return [int(number) for number in re.findall(r"resuming after iteration (\d+)", said)]


def test_killed_twice_and_run_again_gives_identical_results(
    trainable: Path, uninterrupted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert interrupt(trainable, 6, signal.SIGKILL) == -signal.SIGKILL
    assert not results(trainable).exists()
    assert interrupt(trainable, 9, signal.SIGKILL) == -signal.SIGKILL
    train(trainable)
    first, second = resumed_after(capfd.readouterr().out)
    assert 6 <= first < second
    for name in ("last.safetensors", "best.safetensors", "summary.json"):
        assert (results(trainable) / name).read_bytes() == (results(uninterrupted) / name).read_bytes(), name


def test_terminated_run_saves_its_iteration_and_resumes(
    trainable: Path, uninterrupted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert interrupt(trainable, 3, signal.SIGTERM) not in (0, -signal.SIGTERM)
    ((unit, number),) = re.findall(r"stopped after (iteration|epoch) (\d+)", capfd.readouterr().err)
    train(trainable)
    assert resumed_after(capfd.readouterr().out) == [int(number) * (12 if unit == "epoch" else 1)]
    name = "last.safetensors"
    assert (results(trainable) / name).read_bytes() == (results(uninterrupted) / name).read_bytes()


def test_worker_processes_do_not_change_the_weights(brief: Path, briefly_trained: Path) -> None:
    edit_yaml(brief / "params.yaml", runtime={"device": "cpu", "workers": 2, "mlflow": False})
    train(brief)
    name = "last.safetensors"
    assert (results(brief) / name).read_bytes() == (results(briefly_trained) / name).read_bytes()


def test_another_seed_gives_other_weights(briefly_trained: Path) -> None:
    train(briefly_trained, seed=1)
    first, other = (load_file(results(briefly_trained, seed) / "last.safetensors") for seed in (0, 1))
    assert other.keys() == first.keys()
    assert not np.array_equal(other["memory.memory"], first["memory.memory"])


def test_curves_summary_and_memory_are_written_and_no_state_is_left(uninterrupted: Path) -> None:
    assert not list((uninterrupted / "runs" / "state").rglob("*.pt"))
    curves = uninterrupted / "runs" / "curves" / BENCHMARK / "0"
    history, validation = pd.read_csv(curves / "history.csv"), pd.read_csv(curves / "validation.csv")
    summary = json.loads((results(uninterrupted) / "summary.json").read_text())
    assert history["iteration"].iloc[-1] == summary["iterations"] == 2 * (1200 // 100)
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


def test_batch_larger_than_the_split_is_an_error(trainable: Path) -> None:
    edit_plan(trainable, schedule={"epochs": 1, "batch_size": 5000})
    with pytest.raises(PipelineError, match=r"schedule.batch_size: 5000 is larger than the training split of digits"):
        train_tiny(trainable)


def test_ranks_that_cannot_share_the_batch_are_an_error_whoever_started_them(
    trainable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_plan(trainable, schedule={"epochs": 1, "batch_size": 4})
    monkeypatch.setattr("pipeline.training.train.ranks", lambda: Ranks(0, 3))
    with pytest.raises(PipelineError, match=r"batch_size: 4, which these cannot share equally; .* may be 1, 2, 4"):
        train_tiny(trainable)


def test_class_weights_come_from_the_training_images_alone(trainable: Path) -> None:
    edit_plan(trainable, loss={"class_weights": "median_frequency"})
    benchmark = load_resolved(Layout(trainable).resolved_for("train", BENCHMARK))
    prepared = Prepared(Layout(trainable).prepared("digits"))
    runtime = load_project(trainable).runtime
    trainer, _ = _build(benchmark, 0, runtime, prepared, torch.device("cpu"), weights=None)
    counts = np.stack(prepared.table.query("split == 'train'")["histogram"])[:, :-1]  # the last are ignored
    assert torch.equal(trainer.class_weights, median_frequency(counts))


def train_with_scores(root: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], **schedule: int) -> list[Any]:
    """Train on a few scenes, each validation giving the next of `scores`; the weights at each of them."""
    weights = []

    def validate(trainer: Trainer, *_: object) -> dict[str, float]:
        weights.append({name: value.numpy().copy() for name, value in trainer.model.state_dict().items()})
        return {"miou": scores[len(weights) - 1], "pixel_accuracy": 0.5}

    monkeypatch.setattr("pipeline.training.train._validate", validate)  # which epoch is the best is else by chance
    edit_plan(root, schedule={"batch_size": 12, **schedule}, dataset={"name": "digits", "train_fraction": 0.02})
    train_tiny(root)
    return weights


def test_the_best_weights_are_those_of_the_best_validation(trainable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_epochs = train_with_scores(trainable, monkeypatch, [0.1, 0.5, 0.3], epochs=3, validate_every=1)
    for name, expected in (("best", of_epochs[1]), ("last", of_epochs[2])):
        found = load_file(results(trainable) / f"{name}.safetensors")
        assert all(np.array_equal(found[key], value) for key, value in expected.items()), name
    assert json.loads((results(trainable) / "summary.json").read_text())["best"] == {"epoch": 2, "miou": 0.5}


def test_validations_are_some_epochs_apart_and_one_is_at_the_end(
    trainable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_with_scores(trainable, monkeypatch, [0.1, 0.2, 0.3], epochs=5, validate_every=2)
    curve = pd.read_csv(trainable / "runs" / "curves" / BENCHMARK / "0" / "validation.csv")
    assert list(curve["epoch"]) == [2, 4, 5]


def test_splits_of_ignored_pixels_only_are_an_error_and_absent_classes_are_named(
    trainable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Layout(trainable).prepared("digits") / "table.parquet"
    table = pd.read_parquet(path)
    without = [np.where(np.arange(len(row)) == 3, 0, row) for row in table["histogram"]]
    table.assign(histogram=without).to_parquet(path)
    edit_plan(trainable, schedule=BRIEF)
    train_tiny(trainable)
    assert "digits: no training image has two\n" in capsys.readouterr().out
    for split, message in (("train", "1200 training"), ("val", r"\d+ validation")):
        ignored = [np.zeros_like(row) if s == split else row for s, row in zip(table["split"], without, strict=True)]
        table.assign(histogram=ignored).to_parquet(path)
        with pytest.raises(PipelineError, match=rf"digits: every pixel of the {message} images is ignored"):
            train_tiny(trainable, seed=1)


def test_a_split_without_images_is_an_error(trainable: Path) -> None:
    path = Layout(trainable).prepared("digits") / "table.parquet"
    table = pd.read_parquet(path)
    table[table["split"] != "val"].to_parquet(path)
    with pytest.raises(PipelineError, match=r"digits: no validation images; declare some in `sources.digits.images`"):
        train_tiny(trainable)


def test_a_training_whose_weights_are_gone_is_not_done(uninterrupted: Path, tmp_path: Path) -> None:
    root = shutil.copytree(uninterrupted, tmp_path / "project")
    benchmark = load_resolved(Layout(root).resolved_for("train", BENCHMARK))
    assert is_trained(root, benchmark, 0, load_project(root).runtime)
    (results(root) / "best.safetensors").unlink()
    assert not is_trained(root, benchmark, 0, load_project(root).runtime)


def test_a_state_that_was_saved_with_more_gpus_is_restored() -> None:
    state = random_state() | {"cuda": [torch.get_rng_state()] * (torch.cuda.device_count() + 2)}
    expected = torch.rand(3)
    restore_random_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_a_warm_up_as_long_as_the_training_is_an_error(trainable: Path) -> None:
    edit_plan(trainable, schedule={"epochs": 2, "batch_size": 100, "warmup_iterations": 24})
    with pytest.raises(PipelineError, match=r"warmup_iterations: 24, but the whole training has 24 iterations"):
        train_tiny(trainable)
