"""A published number beside a measured one: what may be compared, and how it is judged."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.fake_results import row

from pipeline.config import Benchmark
from pipeline.results.compare import SERVER, SUBSET, PublishedComparison, compare, marks, prediction_interval


def _published(paper: float | None, model_zoo: float | None) -> Benchmark:
    return row(paper=(paper, None), model_zoo=(model_zoo, None))


def _compare(
    *measured: float, paper: float | None = None, zoo: float | None = 60.0, imported: bool = True, why: str = ""
) -> PublishedComparison:
    return compare(_published(paper, zoo), "single_scale", np.array(measured), imported, [why] if why else [])


@pytest.mark.parametrize(("measured", "verdict"), [(60.10, "yes"), (59.90, "yes"), (60.11, "no"), (59.89, "no")])
def test_an_import_is_judged_by_a_tenth_of_a_point_at_two_decimals(measured: float, verdict: str) -> None:
    found = _compare(measured)
    assert found.verdict == verdict
    assert found.difference == round(measured - 60, 2)


def test_the_model_zoo_counts_and_agreement_with_the_paper_alone_is_said_as_such() -> None:
    found = _compare(60.0, paper=60.0, zoo=61.0)
    assert (found.published, found.paper, found.difference) == (61.0, 60.0, -1.0)
    assert found.verdict == "of the paper's number only"


def test_the_papers_number_is_used_where_the_model_zoo_has_none() -> None:
    found = _compare(60.0, paper=60.05, zoo=None)
    assert (found.published, found.paper, found.verdict) == (60.05, None, "yes")


def test_trainings_are_judged_by_the_prediction_interval_of_their_seeds() -> None:
    seeds = (60.0, 61.0, 62.0)
    low, high = prediction_interval(np.array(seeds))
    assert _compare(*seeds, zoo=low + 0.01, imported=False).verdict == "yes"
    found = _compare(*seeds, zoo=low - 0.01, imported=False)
    assert (found.verdict, found.interval) == ("no", (low, high))


def test_the_prediction_interval_is_student_s_for_one_more_value() -> None:
    low, high = prediction_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 * 1.0 * np.sqrt(4 / 3)  # t(0.975, 2 degrees of freedom), SD 1
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


def test_one_seed_is_not_judged_but_its_difference_is_shown() -> None:
    found = _compare(61.0, imported=False)
    assert (found.verdict, found.difference, found.interval) == ("not judged: one seed", 1.0, None)


@pytest.mark.parametrize("why", [SUBSET, SERVER])
def test_numbers_of_other_images_have_no_difference(why: str) -> None:
    found = _compare(60.0, why=why)
    assert (found.verdict, found.difference) == (why, None)


def test_marks_name_every_reason_and_mode_and_baseline_are_none() -> None:
    file = row()
    shorter = file.schedule.model_copy(update={"epochs": 1})
    ran = file.model_copy(update={"schedule": shorter, "mode": "train", "baseline": "other"})
    assert marks(file, ran, is_part=True, server_scored=True) == [SUBSET, SERVER, "changed: `schedule.epochs`"]
