"""One short script per DVC stage: read the plan, call `pipeline`, write the outs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def stage() -> Iterator[None]:
    """Errors meant for the user end the stage with their message alone; all others keep their traceback."""
    try:
        yield
    except PipelineError as error:
        sys.exit(f"error: {error}")
