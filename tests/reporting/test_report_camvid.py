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

PROTOCOLS = ("Single scale", "ms+flip")


@pytest.mark.parametrize("study", ["camvid", "camvid-settings"])
def test_the_records_give_every_number_of_the_committed_report(study: str) -> None:
    report = build_report(recorded_study(ROOT, load_plan(ROOT, study, "small")))
    found = tables(page.markdown(report))
    expected = json.loads((ROOT / "tests" / "goldens" / f"{study}-small-tables.json").read_text(encoding="utf-8"))
    assert expected
    for name, golden in expected.items():
        columns = _named_apart(golden["columns"])
        # Classes are ordered by their share now, and there are columns that the golden tables do not have.
        rows = [[row[column] for column in columns] for row in found[name]]
        assert sorted(rows) == sorted(golden["rows"]), name


def _named_apart(columns: list[str]) -> list[str]:
    """The golden tables have two columns `95 % interval`, one per protocol; the report names the protocol."""
    if columns.count("95 % interval") == 1:
        return columns
    protocols = iter(PROTOCOLS)
    return [f"{next(protocols)}: {name}" if name == "95 % interval" else name for name in columns]
