"""One short script per DVC stage: read the plan, call `pipeline`, write the outs."""

from pathlib import Path

from pipeline.errors import told_in_one_line as stage

__all__ = ["ROOT", "stage"]

ROOT = Path(__file__).resolve().parents[1]
