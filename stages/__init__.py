"""One short script per DVC stage: read the plan, call `pipeline`, write the outs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import report_user_errors
from pipeline.runtime.stage_code import unedited

__all__ = ["ROOT", "stage"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def stage(name: str, *item: str) -> Iterator[None]:
    """Run one stage: problems are printed as messages, and code edited meanwhile is one of them."""
    with report_user_errors(), unedited(ROOT, name, item):
        yield
