"""One content, two renderings: Markdown with files beside it, and HTML that is complete in one file."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from pipeline.reporting.content import Block, Code, Facts, Figure, Note, Report, Table, Text

TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = MarkdownIt("commonmark", {"html": False})


def markdown(report: Report) -> str:
    """The report as Markdown; figures are expected in `figures/`."""
    parts = [f"# {report.title}", f"*{report.subtitle}*"]
    for section in report.sections:
        parts.append(f'<a id="{section.key}"></a>\n\n## {section.title}')
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def html(report: Report) -> str:
    """The report as one HTML file: style and figures inside, no script, nothing fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": _inline, "prose": _prose, "data_uri": _data_uri, "size": _size}
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("report.html.j2").render(report=report)


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return text
        case Note(text, kind):
            lead = "⚠️ " if kind == "warning" else ""
            return f"> {lead}{text}"
        case Facts(items):
            return "\n".join(f"- {fact.label}: **{fact.value}** ({fact.detail})" for fact in items)
        case Code(text):
            return f"```sh\n{text}\n```"
        case Figure(name=name, alt=alt, caption=caption):
            return f"![{alt.translate(_ALT)}](figures/{name}.png)\n\n*{_unstarred(caption)}*"
        case Table():
            return _markdown_table(block)


_ALT = str.maketrans({"[": "\\[", "]": "\\]", "*": "\\*", "_": "\\_"})


def _unstarred(caption: str) -> str:
    """A caption is set in italics as a whole, which emphasis inside would end."""
    return caption.replace("*", "")


def _markdown_table(table: Table) -> str:
    lines = [
        "| " + " | ".join(column.title for column in table.columns) + " |",
        "|" + "|".join("---:" if column.number else ":---" for column in table.columns) + "|",
        *("| " + " | ".join(row) + " |" for row in table.rows),
    ]
    return f"**{table.caption}**\n\n" + "\n".join(lines)


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
