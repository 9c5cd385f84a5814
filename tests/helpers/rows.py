"""Published rows made small enough for tests: the real files of params/, with small pictures and a thin head."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from helpers.project import ROOT, edit_yaml, make_project, write_yaml
from pipeline.config import Benchmark, load_resolved
from pipeline.config.overlay import overlay
from pipeline.layout import Layout

THIN = {"channels": 32, "attention_channels": 16}
SMALL = {"keep_ratio": True, "long": 128, "short": 64}


def make_rows_project(root: Path, **rows: dict[str, Any]) -> Path:
    """A project whose params/ hold all published rows. rows: changes to those that are run, by id (`_` for `-`)."""
    make_project(root)
    shutil.rmtree(root / "params")
    shutil.copytree(ROOT / "params", root / "params")
    chosen = {name.replace("_", "-"): changes for name, changes in rows.items()}
    for name, changes in chosen.items():
        path = root / "params" / f"{name}.yaml"
        write_yaml(path, overlay(yaml.safe_load(path.read_text(encoding="utf-8")), changes))
    edit_yaml(root / "params.yaml", benchmarks=list(chosen), ablation={"memory": {"strategy": None}})
    return root


def small_inference() -> dict[str, Any]:
    """Test pictures of 64 pixels and two scales."""
    return {"resize": SMALL, "ms_flip": {"scales": [1.0, 1.5]}}


def resolved(root: Path, stage: str, benchmark: str) -> Benchmark:
    """What `stage` (train or evaluate) reads of the benchmark, as the plan wrote it."""
    return load_resolved(Layout(root).resolved_for(stage, benchmark))
