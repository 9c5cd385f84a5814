"""The committed reports of the studies, computed again from the committed records of their trainings."""

from __future__ import annotations

import pytest
from helpers.markdown import tables
from helpers.project import ROOT

from pipeline.config.study import load_plan
from pipeline.reporting import page
from pipeline.reporting.report import build_report
from pipeline.reporting.study import recorded_study

STUDIES = sorted(path.parts[-3] for path in (ROOT / "reports").glob("*/small/runs"))


@pytest.mark.parametrize("study", STUDIES)
def test_the_records_give_every_table_of_the_report(study: str) -> None:
    report = page.markdown(build_report(recorded_study(ROOT, load_plan(ROOT, study, "small"))))
    committed = (ROOT / "reports" / study / "small" / "report.md").read_text(encoding="utf-8")
    assert len(tables(committed)) > 2
    assert tables(report) == tables(committed)
