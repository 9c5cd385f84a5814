"""What of a benchmark's data and weights is on this machine already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints.download import weights_path
from pipeline.checkpoints.planned import PlannedWeights
from pipeline.config import Project
from pipeline.datasets.download import FETCHED
from pipeline.datasets.planned import path_and_images
from pipeline.files.storage import cached_json
from pipeline.layout import Layout


@dataclass(frozen=True)
class Presence:
    """Whether something is here, and at which path. `problem`: why what was found cannot serve."""

    present: bool
    path: str
    problem: str | None = None


def data_presence(root: Path, project: Project, dataset: str) -> Presence:
    """A dataset: at the place that `sources` of params.yaml names, else fetched or prepared earlier."""
    path, _ = path_and_images(project.sources.get(dataset))
    if path is not None:
        here = (root / Path(path).expanduser()).exists()
        return Presence(here, path, None if here else f"params.yaml: sources.{dataset}: {path}: no such file or folder")
    layout = Layout(root)
    raw, prepared = layout.raw(dataset), layout.prepared(dataset)
    origin = cached_json(raw / FETCHED).get("source")
    if origin is not None:
        return Presence(False, str(origin), f"it came from {origin}, which params.yaml no longer names in `sources`")
    for folder, marker in ((raw, FETCHED), (prepared, "dataset.json")):
        if (folder / marker).is_file():
            return Presence(True, folder.relative_to(root).as_posix())
    return Presence(False, raw.relative_to(root).as_posix())


def weights_presence(root: Path, weights: PlannedWeights) -> Presence:
    """A weight file: the local one that `weights` of params.yaml names, else one downloaded earlier."""
    if weights.file is not None:
        here = (root / Path(weights.file).expanduser()).is_file()
        problem = None if here else f"params.yaml: weights.{weights.name}: {weights.file}: no such file"
        return Presence(here, weights.file, problem)
    layout = Layout(root)
    downloaded = [weights_path(url, layout) for url in weights.urls if weights_path(url, layout).is_file()]
    where = downloaded[0] if downloaded else layout.weights
    return Presence(bool(downloaded), where.relative_to(root).as_posix())
