"""Which datasets the chosen benchmarks need: written by `plan`, read by `download` and `preprocess`.

Apart from `pipeline.planning.plan`, which builds models, so that these two stages start without importing torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Benchmark
from pipeline.config.schema import SourceConfig
from pipeline.files.storage import read_json, write_json


@dataclass(frozen=True)
class PlannedDataset:
    """Where a dataset comes from (None: its public address) and which chosen benchmarks use it.

    images: number per split when the source is a declared part of the dataset, else None.
    """

    source: str | None
    images: Mapping[str, int] | None
    benchmarks: tuple[str, ...]


def write_planned_datasets(
    plan_dir: Path, benchmarks: Iterable[Benchmark], sources: Mapping[str, str | SourceConfig | None]
) -> None:
    """Write `plan_dir/datasets.json`; datasets that `sources` does not name come from their public address."""
    by_name: dict[str, list[str]] = {}
    for benchmark in benchmarks:
        by_name.setdefault(benchmark.dataset.name, []).append(benchmark.id)
    data = {name: {**_source(sources.get(name)), "benchmarks": ids} for name, ids in sorted(by_name.items())}
    write_json(plan_dir / "datasets.json", data)


def planned_datasets(plan_dir: Path) -> dict[str, PlannedDataset]:
    """What `write_planned_datasets` wrote, by name."""
    data = read_json(plan_dir / "datasets.json", "run `dvc repro`")
    return {
        name: PlannedDataset(entry["source"], entry["images"], tuple(entry["benchmarks"]))
        for name, entry in data.items()
    }


def path_and_images(source: str | SourceConfig | None) -> tuple[str | None, Mapping[str, int] | None]:
    """Of an entry of `sources`: its local path (None: the public address), and the images of a declared part."""
    return (source.path, source.images) if isinstance(source, SourceConfig) else (source, None)


def _source(source: str | SourceConfig | None) -> dict[str, object]:
    path, images = path_and_images(source)
    return {"source": path, "images": images}
