"""One short script per DVC stage: read the plan, call `pipeline`, write the outs."""

from pathlib import Path

from pipeline.errors import report_user_errors

__all__ = ["ROOT", "report_user_errors"]

ROOT = Path(__file__).resolve().parents[1]
