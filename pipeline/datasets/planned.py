"""The datasets that the chosen benchmarks need: written by `plan`, read by `download` and `preprocess`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Benchmark
from pipeline.config.schema import SourceConfig
from pipeline.files.storage import read_json, write_json

_FILE = "datasets.json"  # in the plan's folder


@dataclass(frozen=True)
class PlannedDataset:
    """Where a dataset comes from."""

    source: str | None  # None: its public address
    images: Mapping[str, int] | None  # per split, if the source is a declared part of the dataset
    benchmarks: tuple[str, ...]  # chosen, that use it


def write_planned_datasets(
    plan_dir: Path, benchmarks: Iterable[Benchmark], sources: Mapping[str, str | SourceConfig | None]
) -> None:
    """Write `plan_dir/datasets.json`; datasets that are not in `sources` come from their public address."""
    data: dict[str, dict[str, Any]] = {}
    for benchmark in sorted(benchmarks, key=lambda benchmark: benchmark.dataset.name):
        name = benchmark.dataset.name
        path, images = path_and_images(sources.get(name))
        data.setdefault(name, {"source": path, "images": images, "benchmarks": []})["benchmarks"].append(benchmark.id)
    write_json(plan_dir / _FILE, data)


def planned_datasets(plan_dir: Path) -> dict[str, PlannedDataset]:
    """What `write_planned_datasets` wrote, by name."""
    data = read_json(plan_dir / _FILE, "run `dvc repro`")
    return {name: PlannedDataset(**entry | {"benchmarks": tuple(entry["benchmarks"])}) for name, entry in data.items()}


def path_and_images(source: str | SourceConfig | None) -> tuple[str | None, Mapping[str, int] | None]:
    """Local path (None: the public address) and images of a declared part, of an entry of `sources` in params.yaml."""
    return (source.path, source.images) if isinstance(source, SourceConfig) else (source, None)
