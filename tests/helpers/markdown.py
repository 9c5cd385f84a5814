"""Parts of Markdown files: code blocks, tables and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

Row = dict[str, str]

_BLOCK = re.compile(r"^```(\w*)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"^(\|.+\|)\n\|[-:| ]+\|\n((?:\|.*\|\n?)+)", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SOURCE = re.compile(r"<(?:img|source)[^>]*\s(?:src|srcset)=\"([^\"]+)\"")


class Block(NamedTuple):
    """A fenced code block: ```language title=TITLE."""

    language: str
    title: str
    text: str


class Table(NamedTuple):
    """A table, its cells without the marks of bold text and code."""

    caption: str  # the bold line above the table, without its marks, or empty
    columns: list[str]
    cells: list[list[str]]  # row by row

    @property
    def rows(self) -> list[Row]:
        """Rows as {column: cell}; of columns with equal names the last one counts."""
        return [dict(zip(self.columns, cells, strict=True)) for cells in self.cells]


def blocks(text: str) -> list[Block]:
    """All fenced code blocks."""
    return [Block(*found) for found in _BLOCK.findall(text)]


def without_code(text: str) -> str:
    """The text without fenced blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "", _BLOCK.sub("", text))


def tables(text: str) -> list[Table]:
    """All tables."""
    found = []
    for match in _TABLE.finditer(_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)):
        columns = [cell.strip() for cell in match[1].strip("|").split("|")]
        cells = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in match[2].splitlines()]
        above = match.string[: match.start()].rstrip().rpartition("\n")[2]
        caption = above.strip("*") if above.startswith("**") and above.endswith("**") else ""
        found.append(Table(caption, columns, cells))
    return found


def links(text: str) -> list[str]:
    """Targets of all links and pictures outside code."""
    text = without_code(text)
    return [*_LINK.findall(text), *_SOURCE.findall(text)]


def anchors(path: Path) -> set[str]:
    """Names of a file's headings as GitHub makes them, and its explicit ones."""
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r"<a id=\"([^\"]+)\"", text))
