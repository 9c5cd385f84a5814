"""What a benchmark starts from, as one small file: what training depends on in the DVC graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.datasets.prepared import Prepared
from pipeline.files import read_json, write_json


def write_index(prepared_dir: Path, benchmark: str, path: Path, weights: str | None = None) -> None:
    """Write dataset name and fingerprint for `benchmark`; unchanged data gives an unchanged file.

    weights: sha256 of the weight file that the benchmark starts from, None when it starts from none.
    """
    info = Prepared(prepared_dir).info
    content = {"benchmark": benchmark, "dataset": info["name"], "fingerprint": info["fingerprint"], "weights": weights}
    write_json(path, content)


def read_index(path: Path) -> dict[str, Any]:
    """What `write_index` wrote. Raises PipelineError when it is missing."""
    return read_json(path, f"run `dvc repro` to prepare what {path.stem} needs")
