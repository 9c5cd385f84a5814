"""The first chapter of the report: did this run reproduce?"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fake_results import benchmark, other_trainings, write_results
from helpers.report_tables import tables, words

from pipeline.reporting.study import chosen_study
from pipeline.results.reference import write_reference

CAPTION = "Yours beside the reference, mIoU in percent and gains in points"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path, images=6, benchmarks=[benchmark("fcn", memory) for memory in (False, True)])
    return tmp_path


def _record(root: Path, by: float = 0.0) -> None:
    """Reference records of five trainings near the results, or `by` away from them."""
    for variant in chosen_study(root).ran:
        write_reference(root, other_trainings(variant.benchmark, variant.runs, by))


def test_it_comes_first_and_gives_the_verdict_in_one_word(results: Path) -> None:
    _record(results)
    text = words(results)
    assert text.index("## Did this run reproduce?") < text.index("## What came out")
    assert "**Reproduced.** All 6 numbers are where a rerun is expected" in text
    rows = tables(text)[f"verdict: {CAPTION}"]
    assert {row["Verdict"] for row in rows} == {"reproduced"}
    assert rows[0]["Its seeds"] == "5"


def test_it_counts_what_is_different(results: Path) -> None:
    _record(results, by=0.4)
    assert "**Different.** 4 of 6 numbers are not what" in words(results)  # scores moved alike, so gains did not move


def test_without_a_reference_it_says_so(results: Path) -> None:
    assert "**Nothing to compare with**: no reference record." in words(results)
