"""What the report says, without saying how it looks. `render` turns it into Markdown and HTML.

Every text is inline Markdown (Text may hold lists and paragraphs), so that both outputs are made from one source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Text:
    """Paragraphs or lists, Markdown."""

    text: str


@dataclass(frozen=True)
class Note:
    """A remark set apart from the text; a warning is one that the reader must not miss."""

    text: str
    kind: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Fact:
    """One number in large type. `tone` says whether it is a resolved gain or loss."""

    label: str
    value: str
    detail: str
    tone: Literal["neutral", "gain", "loss"] = "neutral"


@dataclass(frozen=True)
class Facts:
    """The few numbers a hurried reader takes away."""

    items: tuple[Fact, ...]


@dataclass(frozen=True)
class Column:
    """Head of a table column; numbers are set flush right."""

    title: str
    number: bool = True


@dataclass(frozen=True)
class Table:
    """The first cell of each row is the row's header."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A PNG, drawn when first asked for. `alt` tells what is seen to who cannot see it, `caption` what it means."""

    name: str
    draw: Callable[[], bytes]
    alt: str
    caption: str

    @cached_property
    def png(self) -> bytes:
        """The file's content."""
        return self.draw()


@dataclass(frozen=True)
class Code:
    """Commands to copy."""

    text: str


Block = Text | Note | Facts | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A chapter; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """The whole document."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
