"""The committed reports of the CamVid studies, computed again from the committed records of their trainings."""

from __future__ import annotations

import json

import pytest
from helpers.project import ROOT
from helpers.report_tables import tables

from pipeline.config.study import load_plan
from pipeline.reporting import page
from pipeline.reporting.report import build_report
from pipeline.reporting.study import recorded_study


@pytest.mark.parametrize("study", ["camvid", "camvid-settings"])
def test_the_records_give_the_scores_and_differences_that_they_gave_when_they_were_made(study: str) -> None:
    report = build_report(recorded_study(ROOT, load_plan(ROOT, study, "small")))
    found = tables(page.markdown(report))
    expected = json.loads((ROOT / "tests" / "goldens" / f"{study}-small-tables.json").read_text(encoding="utf-8"))
    assert expected
    for name, golden in expected.items():
        # Classes are ordered by their share now, and there are columns that the golden tables do not have.
        rows = [[row[column] for column in golden["columns"]] for row in found[name]]
        assert sorted(rows) == sorted(golden["rows"]), name
