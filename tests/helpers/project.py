"""A small project: its benchmarks, its folder, its YAML files."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pipeline.checkpoints.download import download_weights
from pipeline.checkpoints.planned import planned_weights
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.planned import planned_datasets
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import write_index
from pipeline.layout import Layout
from pipeline.planning.plan import write_plan

ROOT = Path(__file__).resolve().parents[2]

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


def prepare_all(root: Path) -> None:
    """The stages plan, download and preprocess."""
    layout = Layout(root)
    write_plan(root, layout.plan)
    weights = planned_weights(layout.plan)
    download_weights(weights, layout)
    found = json.loads(layout.weights_source.read_text())
    for name, plan in planned_datasets(layout.plan).items():
        spec = get_dataset(name, plan.images)
        download(spec, layout.raw(name), plan.source, layout.source(name))
        prepare(spec, layout.raw(name), layout.prepared(name))
        for benchmark in plan.benchmarks:
            digest = found[benchmark]["sha256"] if benchmark in found else None
            write_index(spec, layout.prepared(name), benchmark, layout.index(benchmark), digest)


def copy_prepared(prepared: Path, root: Path) -> Path:
    """`prepared_project` at `root`, to be changed; without the raw data, which nothing after `preprocess` reads."""
    return shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("raw"))


def write_yaml(path: Path, data: dict[str, Any]) -> None:
    """Write `data` to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """Set top-level keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_arrays(path: Path, **changes: NDArray[Any]) -> None:
    """Set arrays of an npz file."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays | changes)


def edit_yaml(path: Path, **changes: Any) -> None:
    """Set top-level keys of a YAML file."""
    write_yaml(path, yaml.safe_load(path.read_text(encoding="utf-8")) | changes)
