"""A small project: its benchmarks, its folder, its YAML files."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

TINY: dict[str, Any] = {
    "description": "a benchmark small enough for tests",
    "dataset": {"name": "digits"},
    "encoder": {"name": "resnet18", "depth": 3},
    "segmentor": {
        "framework": "fcn",
        "channels": 16,
        "attention_channels": 8,
        "auxiliary": [{"feature": -2, "channels": 8}],
    },
    "schedule": {"epochs": 2, "batch_size": 100, "validate_every": 1},
    "augmentation": {"crop": [32, 32]},
    "inference": {"ms_flip": {"scales": [1.0, 0.5], "flip": True, "average": "probabilities"}},
}

RUNTIME = {"device": "cpu", "precision": "float32", "accumulate": 1, "compile": False, "workers": 0}
RUNTIME |= {"evaluation_batch": 8, "mlflow": False}


def make_project(root: Path) -> Path:
    """Lay out a small project under `root`, with MLflow off."""
    tiny = copy.deepcopy(TINY)
    root.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / "reports" / "reference").mkdir(parents=True)
    (root / "reports" / "reference" / "README.md").write_text("none\n")
    write_yaml(root / "params" / "tiny-fcn.yaml", tiny)
    with_memory = {**tiny, "baseline": "tiny-fcn", "memory": {}, "loss": {"consistency": 1.0}}
    write_yaml(root / "params" / "tiny-fcn-mcibi.yaml", with_memory)
    write_yaml(
        root / "params.yaml",
        {
            "benchmarks": ["tiny-fcn", "tiny-fcn-mcibi"],
            "seeds": [0],
            "sources": {},
            "weights": {},
            "runtime": RUNTIME,
            "ablation": {"memory": {"strategy": None}, "loss": {"consistency": None}},
        },
    )
    return root


def write_yaml(path: Path, data: dict[str, Any]) -> None:
    """Write `data` to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def edit_yaml(path: Path, **changes: Any) -> None:
    """Set top-level keys of a YAML file."""
    write_yaml(path, yaml.safe_load(path.read_text(encoding="utf-8")) | changes)
