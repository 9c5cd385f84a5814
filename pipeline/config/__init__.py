"""Typed configuration: params.yaml, the benchmarks of params/ and the studies of studies/.

`parse` (YAML and errors), `schema` (every key and its default), `overlay` (one mapping over another), `load` (files,
hashes), `study` (variants of one benchmark), `limits` (what `runtime` cannot run).
"""

from pipeline.config.load import (
    benchmark_ids,
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
    "benchmark_ids",
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
