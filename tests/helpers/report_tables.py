"""The report's tables, read back from its Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.reporting import page
from pipeline.reporting.report import build_report
from pipeline.reporting.study import chosen_study

_TABLE = re.compile(r"\*\*(.+)\*\*\n\n(\|.*\|)\n\|[-:|]+\|\n((?:\|.*\|\n)+)")


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Every table by `CHAPTER: CAPTION`: rows as {column: cell}, without Markdown marks."""
    found = {}
    for part in text.split('<a id="')[1:]:
        for caption, head, body in _TABLE.findall(part):
            names = [cell.strip() for cell in head.strip("|").split("|")]
            rows = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in body.splitlines()]
            chapter = part.partition('"')[0]
            found[f"{chapter}: {caption}"] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def words(root: Path) -> str:
    """The Markdown that the results under `root` give now; nothing is drawn or written."""
    return page.markdown(build_report(chosen_study(root)))
