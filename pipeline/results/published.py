"""The published benchmarks of params/, and how a run departs from their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Benchmark, benchmark_ids, load_benchmark
from pipeline.config.parse import read_yaml, suggestion
from pipeline.errors import PipelineError

# Keys that say where a number comes from or what it is compared with, not how it is made.
_NOT_COMPARED = ("id", "description", "mode", "baseline", "published")


def published_benchmarks(root: Path) -> tuple[Benchmark, ...]:
    """Every benchmark of params/ with a `published` section, without any ablation, by dataset and id."""
    ids = [name for name in benchmark_ids(root) if read_yaml(root / "params" / f"{name}.yaml").get("published")]
    found = [load_benchmark(root, name) for name in ids]
    return tuple(sorted(found, key=lambda benchmark: (benchmark.dataset.name, benchmark.id)))


def published_rows(benchmarks: Sequence[Benchmark]) -> tuple[Benchmark, ...]:
    """Those with a memory, 18 of MCIBI and 29 of MCIBI++. The others are published baselines."""
    return tuple(benchmark for benchmark in benchmarks if benchmark.memory is not None)


def find_row(root: Path, row_id: str) -> Benchmark:
    """The published row or baseline `row_id`. Raises PipelineError with the nearest valid id when there is none."""
    known = {benchmark.id: benchmark for benchmark in published_benchmarks(root)}
    if row_id not in known:
        raise PipelineError(f"{row_id}: no published row; {suggestion(row_id, known, 'rows')}")
    return known[row_id]


def changed_keys(file: Benchmark, resolved: Benchmark) -> list[str]:
    """Dotted keys of model, data, schedule or protocol in which `resolved` differs from the benchmark's file."""
    parts = [b.model_dump(mode="json", exclude=set(_NOT_COMPARED)) for b in (file, resolved)]
    return _differences(*parts)


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}")
    return found
