"""Experiment tracking with MLflow: `stage_run` while a stage runs, `sync` for results that have no run.

MLflow is imported when one of these is first used, and nowhere else in the project.
"""

from pipeline.tracking.runs import stage_run

__all__ = ["stage_run"]
