"""Published rows made small enough for tests: the real files of params/, with small pictures and a thin head."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT, edit_yaml, make_project, write_yaml

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
        write_yaml(path, overlaid(yaml.safe_load(path.read_text(encoding="utf-8")), changes))
    edit_yaml(root / "params.yaml", benchmarks=list(chosen), ablation={"memory": {"strategy": None}})
    return root


def overlaid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = overlaid(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return merged


def small_inference(**ms_flip: Any) -> dict[str, Any]:
    """Test pictures of 64 pixels and two scales."""
    return {"resize": SMALL, "ms_flip": {"scales": [1.0, 1.5], **ms_flip}}
