"""The report's tables, read back from its Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.reporting import render
from pipeline.reporting.analysis import analyse
from pipeline.reporting.content import Report
from pipeline.reporting.read import read_study
from pipeline.reporting.sections import cost, curves, headline, memory, provenance, published, reading, results


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Every table by caption: rows as {column: cell}, without Markdown marks."""
    found = {}
    for caption, head, body in re.findall(r"\*\*(.+)\*\*\n\n(\|.*\|)\n\|[-:|]+\|\n((?:\|.*\|\n)+)", text):
        names = [cell.strip() for cell in head.strip("|").split("|")]
        rows = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in body.splitlines()]
        found[caption] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def words(root: Path) -> str:
    """The chapters in words and tables that the results under `root` give now, as Markdown; nothing is drawn."""
    analysis = analyse(read_study(root))
    chapters = (headline, results, curves, memory, cost, provenance, published, reading)
    return render.markdown(Report("title", "subtitle", tuple(chapter.section(analysis) for chapter in chapters)))
