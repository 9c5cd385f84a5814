"""The report's tables, read back from its Markdown."""

from __future__ import annotations

from pathlib import Path

from helpers import markdown
from pipeline.reporting import page
from pipeline.reporting.report import build_report
from pipeline.reporting.study import chosen_study


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Every table by `CHAPTER: CAPTION`: rows as {column: cell}, without Markdown marks."""
    parts = [part.partition('"') for part in text.split('<a id="')[1:]]
    return {f"{chapter}: {table.caption}": table.rows for chapter, _, rest in parts for table in markdown.tables(rest)}


def words(root: Path) -> str:
    """The Markdown that the results under `root` give now; nothing is drawn or written."""
    return page.markdown(build_report(chosen_study(root)))
