"""Which weight file each chosen benchmark starts from: written by `plan`, read by `download`.

Does not import torch, so that the stage `download` starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.checkpoints.imagenet import PREFIX, imagenet_urls
from pipeline.config import Benchmark
from pipeline.files.storage import read_json, write_json
from pipeline.layout import Layout


@dataclass(frozen=True)
class PlannedWeights:
    """A weight file to download before training; urls are tried in order unless `file` (local) is given."""

    name: str  # the benchmark's id for its own checkpoint (mode import), else that of ImageNet weights
    urls: tuple[str, ...]
    file: str | None


def weights_of(benchmark: Benchmark, local: Mapping[str, str | None]) -> PlannedWeights | None:
    """The file that `benchmark` starts from; None: none that has to be fetched. local: `weights:` of params.yaml.

    Raises PipelineError for an unknown name.
    """
    encoder_weights = benchmark.encoder.weights or ""
    if benchmark.mode == "import":
        urls = benchmark.published.checkpoints if benchmark.published else ()
        return PlannedWeights(benchmark.id, urls, local.get(benchmark.id))
    if encoder_weights.startswith(PREFIX):
        name = encoder_weights.removeprefix(PREFIX)
        return PlannedWeights(name, imagenet_urls(name), local.get(name))
    return None


def write_planned_weights(plan_dir: Path, benchmarks: Iterable[Benchmark], local: Mapping[str, str | None]) -> None:
    """Write `plan_dir/weights.json`."""
    found = {benchmark.id: weights_of(benchmark, local) for benchmark in benchmarks}
    write_json(plan_dir / "weights.json", {name: asdict(weights) for name, weights in found.items() if weights})


def planned_weights(plan_dir: Path) -> dict[str, PlannedWeights]:
    """What `write_planned_weights` wrote, by benchmark."""
    data = read_json(plan_dir / "weights.json", "run `dvc repro`")
    return {benchmark: PlannedWeights(**entry | {"urls": tuple(entry["urls"])}) for benchmark, entry in data.items()}


@dataclass(frozen=True)
class WeightFile:
    """A verified file. path: relative to `Layout.home`, or absolute."""

    path: str
    url: str | None  # None: a local file
    bytes: int
    sha256: str
    generation: str  # paper | model_zoo (see `generation`) | local


def downloaded_weights(layout: Layout) -> dict[str, WeightFile]:
    """What `download_weights` wrote, by benchmark; those that start from no such file are absent."""
    data = read_json(layout.weights_source, "run `dvc repro`")
    return {benchmark: WeightFile(**entry) for benchmark, entry in data.items()}
