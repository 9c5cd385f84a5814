"""The weight file that a benchmark starts from, verified again before use."""

from __future__ import annotations

from pipeline.checkpoints.planned import WeightFile, downloaded_weights, weights_of
from pipeline.config import Benchmark
from pipeline.datasets.prepared import read_index
from pipeline.errors import PipelineError
from pipeline.files.storage import file_digest
from pipeline.layout import Layout


def starting_weights(layout: Layout, benchmark: Benchmark) -> WeightFile | None:
    """The file that `benchmark` starts from, verified; None when there is none.

    Raises PipelineError when the file is missing or was changed since the stage `download`, and without the index that
    `preprocess` writes.
    """
    if (wanted := weights_of(benchmark, {})) is None:
        return None
    expected = read_index(layout.index(benchmark.id))["weights"]
    again = "run `dvc repro --force --single-item download`, then `dvc repro`"
    file = downloaded_weights(layout).get(benchmark.id)
    if file is None:
        raise PipelineError(f"{layout.weights_source}: no weight file for {benchmark.id}; {again}")
    path = layout.home / file.path
    if not path.is_file():
        raise PipelineError(
            f"{path}: the weights that {benchmark.id} starts from are gone; {again}, which takes them from "
            f"{file.url or 'the same local path'}, or set `weights: {{{wanted.name}: PATH}}` in params.yaml"
        )
    digest = file_digest(path)
    if digest != expected:
        raise PipelineError(f"{path}: sha256 is {digest}, but it was {expected} when it was checked; {again}")
    return file
