"""What a benchmark starts from, its dataset and its weights: what is on this machine and what has to be downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints.download import recorded_weights, weights_path
from pipeline.checkpoints.planned import weights_of
from pipeline.config import Benchmark, Project
from pipeline.datasets import get_dataset
from pipeline.datasets.download import FETCHED
from pipeline.datasets.planned import path_and_images
from pipeline.files.storage import cached_json
from pipeline.layout import Layout

_GIGA = 1e9


@dataclass(frozen=True)
class Need:
    """A dataset or a weight file.

    place: where it is, or where it will come from. download: bytes to fetch, None where its owners announce no size.
    problem: why it can be neither found nor fetched, with the remedy.
    """

    place: str
    present: bool = True
    download: int | None = 0
    problem: str | None = None

    def __str__(self) -> str:
        if self.present:
            return "present"
        if self.problem:
            return "missing"
        return "download" if self.download is None else f"download {self.download / _GIGA:.2f} GB"


def data_need(root: Path, project: Project, dataset: str) -> Need:
    """At the place that `sources` of params.yaml names, else fetched or prepared earlier, else to be downloaded."""
    spec, layout = get_dataset(dataset), Layout(root)
    path, _ = path_and_images(project.sources.get(dataset))
    if path is not None:
        if (root / Path(path).expanduser()).exists():
            return Need(path)
        return Need(path, False, None, f"params.yaml: sources.{dataset}: {path}: no such file or folder; correct it")
    raw, prepared = layout.raw(dataset), layout.prepared(dataset)
    origin = cached_json(raw / FETCHED).get("source")
    if origin is None:
        for folder, marker in ((raw, FETCHED), (prepared, "dataset.json")):
            if (folder / marker).is_file():
                return Need(str(folder))
    if spec.public:
        return Need(spec.homepage, False, spec.download_bytes)
    was = f" (the copy here came from {origin}, which `sources` no longer names)" if origin else ""
    return Need(
        spec.homepage,
        False,
        spec.download_bytes,
        f"{dataset}: not on this machine{was}, and only available with an account or by hand from {spec.homepage}; "
        f"get it there and set `sources: {{{dataset}: PATH}}` in params.yaml",
    )


def weights_need(root: Path, project: Project, benchmark: Benchmark, parameters: int) -> Need | None:
    """The weight file that a benchmark starts from, None when it needs none that has to be fetched.

    parameters: of the network, from which the size of a file that was never downloaded is estimated (float32).
    """
    weights, layout = weights_of(benchmark, project.weights), Layout(root)
    if weights is None:
        return None
    if weights.file is not None:
        if (root / Path(weights.file).expanduser()).is_file():
            return Need(weights.file)
        return Need(weights.file, False, None, f"params.yaml: weights.{weights.name}: {weights.file}: no such file")
    for url in weights.urls:
        if (path := weights_path(url, layout)).is_file():
            return Need(str(path))
    recorded = recorded_weights(layout).get(weights.name)
    return Need(weights.urls[0], False, recorded["bytes"] if recorded else 4 * parameters)
