"""Experiment tracking with MLflow: `runs` (a stage while it runs), `sync` (results without a run), `store` (where).

MLflow is imported when one of these is first used, and nowhere else in the project.
"""

from pipeline.tracking.runs import stage_run

__all__ = ["stage_run"]
