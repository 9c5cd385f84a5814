"""FCN: convolutions only, no context module (the memory, when there is one, is all the context there is)."""

from __future__ import annotations

from pipeline.config.schema import Section
from pipeline.models.frameworks import ContextInput, HeadShape

CONTEXT_INPUT: ContextInput = "none"


class Options(Section):
    """FCN has no options."""


def build_context(shape: HeadShape, options: Options) -> None:
    """FCN gathers no context."""
