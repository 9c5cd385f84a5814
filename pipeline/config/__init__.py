"""Typed configuration: `schema` (what can be said), `parse` (good errors), `load` (files and ablations)."""

from pipeline.config.load import (
    config_hash,
    evaluation_hash,
    for_evaluation,
    for_training,
    load_benchmark,
    load_project,
    load_resolved,
    load_valid_project,
    resolved_yaml,
)
from pipeline.config.schema import Benchmark, Project

__all__ = [
    "Benchmark",
    "Project",
    "config_hash",
    "evaluation_hash",
    "for_evaluation",
    "for_training",
    "load_benchmark",
    "load_project",
    "load_resolved",
    "load_valid_project",
    "resolved_yaml",
]
