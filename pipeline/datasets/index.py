"""What a benchmark starts from, as one small file: what training depends on in the DVC graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.datasets.prepared import Prepared
from pipeline.datasets.spec import DatasetSpec
from pipeline.files.storage import read_json, write_json


def write_index(spec: DatasetSpec, prepared_dir: Path, benchmark: str, path: Path, weights: str | None = None) -> None:
    """Write what `benchmark` takes from its dataset: the fingerprint of the pixels, and what the label values mean.

    Unchanged data gives an unchanged file. weights: sha256 of the weight file that the benchmark starts from, None when
    it starts from none.
    """
    content = {
        "benchmark": benchmark,
        "dataset": spec.name,
        "fingerprint": Prepared(prepared_dir).info["fingerprint"],
        "weights": weights,
        "classes": spec.classes,
        "flip_pairs": spec.flip_pairs,
        "submission_ids": spec.submission_ids,
    }
    write_json(path, content)


def read_index(path: Path) -> dict[str, Any]:
    """What `write_index` wrote. Raises PipelineError when it is missing."""
    return read_json(path, f"run `dvc repro` to prepare what {path.stem} needs")
