"""The committed reports of the CamVid studies, computed again from the committed records of their trainings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.config.study import load_plan
from pipeline.reporting.study_report import write_study_report

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "goldens"
_TABLE = re.compile(r"\*\*(.+)\*\*\n\n(\|.*\|)\n\|[-:|]+\|\n((?:\|.*\|\n)+)")


def tables(text: str) -> dict[str, dict[str, list]]:
    """Tables of a report by `CHAPTER: CAPTION`: the columns, and the rows without Markdown marks."""
    found = {}
    for part in text.split('<a id="')[1:]:
        for caption, head, body in _TABLE.findall(part):
            columns = [cell.strip() for cell in head.strip("|").split("|")]
            rows = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in body.splitlines()]
            chapter = part.partition('"')[0]
            found[f"{chapter}: {caption}"] = {"columns": columns, "rows": rows}
    return found


@pytest.mark.parametrize("study", ["camvid", "camvid-settings"])
def test_the_records_give_every_number_of_the_committed_report(study: str, tmp_path: Path) -> None:
    for name in ("params", "studies", f"reports/{study}/small/runs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_study_report(tmp_path, load_plan(tmp_path, study, "small"))
    found = tables((tmp_path / "reports" / study / "small" / "report.md").read_text(encoding="utf-8"))
    expected = json.loads((GOLDENS / f"{study}-small-tables.json").read_text(encoding="utf-8"))
    for name, table in expected.items():
        assert found[name] == table, name
