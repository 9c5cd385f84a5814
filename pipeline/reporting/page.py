"""The report as a document: chapters of prose, tables and figures, written as Markdown and as one HTML file.

All prose is in `templates/<chapter>.md.j2`; the first line of a rendered template is the chapter's title. Text is
Markdown, so that both outputs have the same source.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import isfunction
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from pipeline.reporting import words

TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_NUMBER = re.compile(r"\**[−+<>]? ?[\d–\[]")  # the start of a cell with a number, an interval or a dash


@dataclass(frozen=True)
class Table:
    """Rows are {column: cell}; the first cell of a row is its header. Columns of numbers are aligned right."""

    caption: str
    rows: Sequence[dict[str, str]]

    @property
    def columns(self) -> dict[str, bool]:
        """Whether each column holds numbers."""
        return {name: all(_NUMBER.match(row[name]) for row in self.rows) for name in self.rows[0]}


@dataclass(frozen=True)
class Figure:
    """A PNG, drawn when first needed. alt: what is seen, for readers who cannot see it; caption: what it means."""

    name: str
    draw: Callable[[], bytes]
    alt: str
    caption: str

    @cached_property
    def png(self) -> bytes:
        """The file's content."""
        return self.draw()


@dataclass(frozen=True)
class Fact:
    """One number in large type."""

    label: str
    value: str
    detail: str
    tone: str  # gain, loss or neutral: its colour


@dataclass(frozen=True)
class Facts:
    """The few numbers for a reader in a hurry."""

    items: Sequence[Fact]


Block = Table | Figure | Facts


@dataclass(frozen=True)
class Section:
    """A chapter; `key` is its anchor, a `str` among its parts is Markdown."""

    key: str
    title: str
    parts: Sequence[str | Block]


@dataclass(frozen=True)
class Report:
    """The whole document."""

    title: str
    subtitle: str
    sections: Sequence[Section]


def section(key: str, template: str, **values: Any) -> Section:
    """The chapter that `templates/<template>.md.j2` makes of `values`; blocks are placed where the template names them.

    A table without rows is left out.
    """
    blocks: list[Block] = []

    def placed(value: Any) -> Any:
        if not isinstance(value, Block):
            return value
        if isinstance(value, Table) and not value.rows:
            return ""
        blocks.append(value)
        return f"\n\n\0{len(blocks) - 1}\0\n\n"

    environment = _environment(finalize=placed)
    environment.filters |= {name: function for name, function in vars(words).items() if isfunction(function)}
    text = environment.get_template(f"{template}.md.j2").render(values)
    title, _, body = text.strip().partition("\n")
    pieces = re.split(r"\0(\d+)\0", body)
    parts = [blocks[int(piece)] if index % 2 else _tidy(piece) for index, piece in enumerate(pieces)]
    return Section(key, title, [part for part in parts if part])


def markdown(report: Report) -> str:
    """The report as Markdown; figures are expected in `figures/`."""
    parts = [f"# {report.title}", f"*{report.subtitle}*"]
    for chapter in report.sections:
        parts.append(f'<a id="{chapter.key}"></a>\n\n## {chapter.title}')
        # The text beside Facts gives the same numbers; they only draw the eye.
        shown = [part for part in chapter.parts if not isinstance(part, Facts)]
        parts += [part if isinstance(part, str) else _markdown_block(part) for part in shown]
    return "\n\n".join(parts) + "\n"


def html(report: Report) -> str:
    """The report as one HTML file: style and figures inside, no script, nothing fetched."""
    environment = _environment(autoescape=True)
    environment.filters |= {"inline": _inline, "prose": _prose, "data_uri": _data_uri, "size": _size}
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("report.html.j2").render(report=report)


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(  # noqa: S701 - Markdown is escaped when it becomes HTML
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def _tidy(text: str) -> str:
    """One empty line between paragraphs; a line of a template that begins with a space continues the one before."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\n (?=\S)", " ", text)).strip()


def _markdown_block(block: Table | Figure) -> str:
    match block:
        case Figure(name=name, alt=alt, caption=caption):
            unstarred = caption.replace("*", "")  # set in italics as a whole, which emphasis inside would end
            return f"![{words.plain(alt)}](figures/{name}.png)\n\n*{unstarred}*"
        case Table(caption, rows):
            lines = [
                "| " + " | ".join(block.columns) + " |",
                "|" + "|".join("---:" if number else ":---" for number in block.columns.values()) + "|",
                *("| " + " | ".join(row.values()) + " |" for row in rows),
            ]
            return f"**{caption}**\n\n" + "\n".join(lines)


def _inline(text: str) -> Markup:
    """Markdown of one line, without a paragraph around it."""
    return Markup(_MARKDOWN.renderInline(text))  # noqa: S704 - raw HTML is switched off in the parser


def _prose(text: str) -> Markup:
    """Markdown of paragraphs and lists."""
    return Markup(_MARKDOWN.render(text))  # noqa: S704 - as above


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _size(png: bytes) -> tuple[int, int]:
    """(width, height) from the PNG header, so that the page does not jump while it loads."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
