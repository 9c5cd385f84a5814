"""What a benchmark starts from, as one small file: what training depends on in the DVC graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.datasets.manifest import write_json
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError


def write_index(prepared_dir: Path, benchmark: str, path: Path, weights: str | None = None) -> None:
    """Write dataset name and fingerprint for `benchmark`; unchanged data gives an unchanged file.

    weights: sha256 of the weight file that the benchmark starts from, None when it starts from none.
    """
    info = Prepared(prepared_dir).info
    content = {"benchmark": benchmark, "dataset": info["name"], "fingerprint": info["fingerprint"], "weights": weights}
    write_json(path, content)


def read_index(path: Path) -> dict[str, Any]:
    """What `write_index` wrote. Raises PipelineError when it is missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: missing; run `dvc repro` to prepare what {path.stem} needs") from None
