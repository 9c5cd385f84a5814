"""Did a rerun reproduce? One word for each score and gain, from reference records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_results import benchmark, other_trainings, row, write_results
from helpers.project import edit_json

from pipeline.config import Benchmark
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.reporting.chapters.verdict import judge
from pipeline.reporting.study import chosen_study
from pipeline.results.compare import prediction_interval
from pipeline.results.reference import Reference, ReferenceTraining, read_reference, write_reference
from pipeline.results.run import Run
from pipeline.results.verdict import Verdict, verdicts, worst

PAIR = ("camvid-fcn", "camvid-fcn-mcibi")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Benchmark, tuple[Run, ...]]]:
    """FCN without and with memory, two seeds."""
    root = tmp_path_factory.mktemp("runs")
    write_results(root, images=6, benchmarks=[benchmark("fcn", memory) for memory in (False, True)])
    return {v.name: (v.benchmark, v.runs) for v in chosen_study(root).ran}


def _words(found: list[Verdict]) -> set[str]:
    return {verdict.word for verdict in found}


def test_a_rerun_within_the_spread_of_the_reference_trainings_is_reproduced(runs: dict) -> None:
    references = {name: other_trainings(*ran) for name, ran in runs.items()}
    found = verdicts(runs, [PAIR], references)
    assert [(v.names, v.protocol) for v in found[4:]] == [(PAIR, "single_scale"), (PAIR, "ms_flip")]
    assert _words(found) == {"reproduced"}
    assert worst(found) == "reproduced"


def test_a_memory_that_was_never_written_is_different_whatever_the_score(tmp_path: Path) -> None:
    write_results(tmp_path, images=6, benchmarks=[benchmark("fcn", memory) for memory in (False, True)])
    runs = {v.name: (v.benchmark, v.runs) for v in chosen_study(tmp_path).ran}
    references = {name: Reference.of_runs(*ran) for name, ran in runs.items()}
    assert _words(verdicts(runs, [], references)) == {"identical"}
    summary = runs[PAIR[1]][1][1].training.folder / "summary.json"
    classes = list(get_dataset("camvid").classes)
    edit_json(summary, untouched_memory=classes)
    runs = {v.name: (v.benchmark, v.runs) for v in chosen_study(tmp_path).ran}
    without, with_ = (verdicts({name: runs[name]}, [], references) for name in PAIR)
    assert _words(without) == {"identical"}
    assert _words(with_) == {"different"}
    assert {verdict.reason for verdict in with_} == {"the memory of seed 1 was never written"}


def test_a_rerun_outside_is_different_and_so_is_its_gain(runs: dict) -> None:
    references = {name: other_trainings(*ran) for name, ran in runs.items()}
    references[PAIR[1]] = other_trainings(*runs[PAIR[1]], shift=0.10)
    found = verdicts(runs, [PAIR], references)
    assert {v.names for v in found if v.word == "different"} == {PAIR[1:], PAIR}
    assert worst(found) == "different"


def test_equal_weights_are_identical_whatever_the_others_did(runs: dict) -> None:
    name, (ran, own) = next(iter(runs.items()))
    reference = Reference.of_runs(ran, own).joined(replace(other_trainings(ran, own, shift=0.3), trainings=()))
    assert _words(verdicts({name: (ran, own)}, [], {name: reference})) == {"identical"}


def test_equal_weights_with_another_score_are_not_identical(runs: dict) -> None:
    name, (ran, own) = next(iter(runs.items()))
    reference = Reference.of_runs(ran, own)
    moved = [replace(t, scores={p: s + 0.2 for p, s in t.scores.items()}) for t in reference.trainings]
    found = verdicts({name: (ran, own)}, [], {name: replace(reference, trainings=tuple(moved))})
    assert "identical" not in _words(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_fingerprint": "f" * 64}, "other data: fingerprint"),
        ({"precision": "bfloat16"}, "another precision than the reference: float32, not bfloat16"),
        (None, "another configuration than the reference: optimizer.lr"),
    ],
)
def test_other_data_precision_or_configuration_is_not_comparable_and_says_which(
    runs: dict, change: dict | None, reason: str
) -> None:
    name, (ran, own) = next(iter(runs.items()))
    reference = other_trainings(ran, own)
    if change is None:
        optimizer = ran.optimizer.model_copy(update={"lr": 0.5})
        change = {"benchmark": reference.benchmark.model_copy(update={"optimizer": optimizer})}
    found = verdicts({name: (ran, own)}, [], {name: replace(reference, **change)})
    assert _words(found) == {"not comparable"}
    assert all(reason in verdict.reason for verdict in found)


def test_one_reference_seed_is_too_few_to_judge_by(runs: dict) -> None:
    name, (ran, own) = next(iter(runs.items()))
    reference = other_trainings(ran, own)
    found = verdicts({name: (ran, own)}, [], {name: replace(reference, trainings=reference.trainings[:1])})
    assert _words(found) == {"not comparable"}
    assert verdicts({name: (ran, own)}, [], {})[0].reason == "no reference record"


def test_trainings_with_one_seed_on_several_kernels_count_once(runs: dict) -> None:
    name, (ran, own) = next(iter(runs.items()))
    reference = other_trainings(ran, own)
    again = tuple(replace(training, kernels="others") for training in reference.trainings)
    twice = replace(reference, trainings=reference.trainings + again)
    once, doubled = (verdicts({name: (ran, own)}, [], {name: each})[0] for each in (reference, twice))
    assert doubled == once
    assert doubled.reference_seeds == 5


def test_the_level_holds_for_all_rows_together() -> None:
    """2000 reruns of three seeds that do reproduce, six numbers each: about one in twenty has a number outside."""
    rng = np.random.default_rng(0)
    level = 1 - 0.05 / 6
    reference, reruns = rng.normal(size=(2000, 6, 10)), rng.normal(size=(2000, 6, 3)).mean(axis=2)
    intervals = np.array([[prediction_interval(each, 3, level) for each in one] for one in reference])
    inside = (intervals[..., 0] <= reruns) & (reruns <= intervals[..., 1])
    assert 0.935 < inside.all(axis=1).mean() < 0.97


def test_a_reference_is_read_back_and_extended(runs: dict, tmp_path: Path) -> None:
    name, (ran, own) = next(iter(runs.items()))
    first, second = (Reference.of_runs(ran, [run]) for run in own)
    write_reference(tmp_path, first.joined(second))
    found = read_reference(tmp_path, name)
    assert found == first.joined(second)
    assert [training.seed for training in found.trainings] == [0, 1]
    assert found.joined(second) == found
    other = replace(second, data_fingerprint="f" * 64)
    assert found.joined(other) == other  # trainings on other data are not mixed
    assert read_reference(tmp_path, "another") is None


def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "reports/reference/digits-fcn.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "digits-fcn"}))
    with pytest.raises(PipelineError, match=r"digits-fcn\.json: damaged record .*make reference"):
        read_reference(tmp_path, "digits-fcn")


@pytest.mark.parametrize(("published", "word"), [(0.0, "reproduced"), (0.3, "different")])
def test_a_published_checkpoint_is_judged_by_the_tolerance_of_its_authors(
    tmp_path: Path, published: float, word: str
) -> None:
    first, root = tmp_path / "first", tmp_path / "root"
    write_results(first, images=6, seeds=(0,), benchmarks=[row()])
    score = chosen_study(first).ran[0].runs[0].scores
    numbers = tuple(round(100 * score[p].miou + published, 2) for p in ("single_scale", "ms_flip"))
    write_results(root, images=6, seeds=(0,), benchmarks=[row(paper=numbers, model_zoo=numbers)])
    assert _words(judge(chosen_study(root))) == {word}


def test_a_training_is_recorded_with_what_names_it(runs: dict) -> None:
    _, (ran, own) = next(iter(runs.items()))
    training = Reference.of_runs(ran, own).trainings[0]
    assert isinstance(training, ReferenceTraining)
    assert len(training.weights) == 64
    assert training.scores == {p: s.miou for p, s in own[0].scores.items()}
