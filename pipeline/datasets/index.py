"""The data that a benchmark uses, as one small file: what training depends on in the DVC graph."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.datasets.prepared import Prepared


def write_index(prepared_dir: Path, benchmark: str, path: Path) -> None:
    """Write dataset name and fingerprint for `benchmark`; unchanged data gives an unchanged file."""
    info = Prepared(prepared_dir).info
    content = {"benchmark": benchmark, "dataset": info["name"], "fingerprint": info["fingerprint"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
