"""The chapter of probes: does a network use its memory?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_results import benchmark, write_results
from helpers.markdown import tables

from pipeline.layout import Layout
from pipeline.reporting.chapters.probes import probes
from pipeline.reporting.page import Report, markdown
from pipeline.reporting.study import Study, chosen_study
from pipeline.results.metrics import iou
from pipeline.results.record import PROBES, EvaluationFiles

NAME = "camvid-fcn-mcibi"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("probed")
    write_results(root, benchmarks=[benchmark("fcn", False), benchmark("fcn", True)], seeds=(0, 1, 2))
    return chosen_study(root)


def chapter(study: Study) -> str:
    return markdown(Report("", "", [probes(study)]))


def with_runs(study: Study, *, seeds: int = 3, same: bool = False) -> Study:
    """The study with some of its seeds; same: no probe changes anything."""
    variant = study.variants[NAME]
    runs = variant.runs[:seeds]
    if same:
        runs = tuple(replace(run, probes=dict.fromkeys(run.probes, run.probes["final"])) for run in runs)
    return replace(study, variants={NAME: replace(variant, runs=runs)})


def test_a_network_that_loses_with_the_wrong_vectors_uses_its_memory(study: Study) -> None:
    text = chapter(study)
    assert f"`{NAME}` **uses its memory**" in text
    assert "camvid-fcn`" not in text  # it has none


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_network_that_nothing_changes_does_not_show_that_it_uses_it(study: Study, seeds: int) -> None:
    text = chapter(with_runs(study, seeds=seeds, same=True))
    assert "does not show that it uses its memory" in text
    assert "**uses" not in text


def test_trainings_are_counted_that_use_it_however_much_they_differ(study: Study) -> None:
    variant = study.variants[NAME]
    other = replace(variant.runs[1], probes=dict.fromkeys(PROBES, variant.runs[1].probes["final"]))
    mixed = replace(variant, runs=(variant.runs[0], other, variant.runs[2]))
    text = chapter(replace(study, variants={NAME: mixed}))
    assert "**uses its memory in 2 of 3 trainings**" in text
    assert ", 0.00, −" in text


def test_levels_and_changes_are_those_of_the_stored_counts(study: Study, tmp_path: Path) -> None:
    (table,) = tables(chapter(study))
    counts = [run.probes for run in study.variants[NAME].runs]
    level = {p: 100 * np.mean([np.nanmean(iou(*(a.sum(0) for a in one[p]))) for one in counts]) for p in PROBES}
    rows = {row["Probe"].partition("*")[0].replace("\\", ""): row for row in table.rows}
    assert list(rows) == list(PROBES)
    for name, row in rows.items():
        assert float(row["mIoU %"]) == pytest.approx(level[name], abs=0.006)
    change = float(rows["shuffled"]["Change, points"].strip("*").replace("−", "-"))
    assert change == pytest.approx(level["shuffled"] - level["final"], abs=0.006)
    assert rows["final"]["Change, points"] == "–"


def test_one_training_has_intervals_over_images_that_say_so(study: Study) -> None:
    text = chapter(with_runs(study, seeds=1))
    assert "**uses its memory**" in text
    assert "over images; with those of the true classes" in text
    (table,) = tables(text)
    assert "95 % interval over images" in table.columns


def test_a_study_without_memory_has_no_such_chapter(study: Study) -> None:
    assert probes(replace(study, variants={"camvid-fcn": study.variants["camvid-fcn"]})) is None


def test_probes_are_kept_beside_the_scores(study: Study) -> None:
    root = study.variants[NAME].runs[0].evaluation.layout.root
    assert set(EvaluationFiles(Layout(root), NAME, 0).probes) == set(PROBES)
    assert EvaluationFiles(Layout(root), "camvid-fcn", 0).probes == {}
