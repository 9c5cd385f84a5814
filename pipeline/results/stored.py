"""Results of a study as files for Git: `reports/<study>/<size>/runs/<variant>-<seed>.json`, and `.npz` beside it.

The JSON holds what was run and its scores; the npz the pixel counts per test image and class, which all intervals are
computed from. One pair of files per training, so that processes that share a study never write the same file.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config import Benchmark, config_hash, evaluation_hash
from pipeline.config.study import Plan
from pipeline.errors import PipelineError
from pipeline.files.storage import read_json, write_json
from pipeline.layout import Layout
from pipeline.reporting.wording import PROTOCOLS
from pipeline.results.bootstrap import Counts

_PROVENANCE = ("config_hash", "evaluation_hash", "commit", "uncommitted_changes", "command", "finished")
_REMEDY = "restore it, or delete it and run the study again"


@dataclass(frozen=True)
class Stored:
    """One training of one variant, evaluated. counts: per protocol, each array (N, K)."""

    variant: str
    seed: int
    record: dict[str, Any]
    ids: tuple[str, ...]
    counts: dict[str, Counts]


def study_dir(root: Path, plan: Plan) -> Path:
    """Where a study's results and report lie."""
    return root / "reports" / plan.name / plan.size


def result_file(root: Path, plan: Plan, variant: str, seed: int) -> Path:
    """The JSON of one run; the counts have the same name with `.npz`."""
    return study_dir(root, plan) / "runs" / f"{variant}-{seed}.json"


def is_stored(root: Path, plan: Plan, variant: str, seed: int) -> bool:
    """Whether a result of this very configuration is there: trained and evaluated alike."""
    path = result_file(root, plan, variant, seed)
    return path.is_file() and _is_of(read_json(path, _REMEDY), plan.benchmarks[variant])


def store(root: Path, plan: Plan, variant: str, seed: int, command: str, code: tuple[str | None, bool]) -> Path:
    """Collect what training and evaluation wrote under `runs/` into the two files; returns the JSON.

    code: commit that ran, and whether files differed from it.
    """
    layout, benchmark = Layout(root), plan.benchmarks[variant]
    train, evaluation = layout.train(benchmark.id, seed), layout.evaluate(benchmark.id, seed)
    summary, cost = read_json(train / "summary.json", _REMEDY), read_json(train / "cost.json", _REMEDY)
    classes = pd.read_csv(evaluation / "details" / "per_class.csv")
    record = {
        "variant": variant,
        "seed": seed,
        "scores": read_json(evaluation / "metrics.json", _REMEDY),
        "validation": summary["final"],
        "training_loss": late_loss(layout.curves(benchmark.id, seed) / "history.csv"),
        "class_iou": {
            name: dict(zip(classes["class"], classes[f"{name}_iou"].round(6).tolist(), strict=True))
            for name in PROTOCOLS
        },
        "config_hash": config_hash(benchmark),
        "evaluation_hash": evaluation_hash(benchmark),
        "run_key": summary["run_key"],
        "data_fingerprint": summary["data_fingerprint"],
        "iterations": summary["iterations"],
        "parameters": summary["parameters"],
        "precision": summary["precision"],
        "training_seconds": round(cost["seconds"], 1),
        "evaluation_seconds": round(read_json(evaluation / "cost.json", _REMEDY)["seconds"], 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": code[0],
        "uncommitted_changes": code[1],
        "command": command,
        **{key: cost[key] for key in ("hardware", "libraries")},
    }
    path = result_file(root, plan, variant, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(evaluation / "details" / "per_image.npz", path.with_suffix(".npz"))
    write_json(path, record)  # last: its presence says that the result is complete
    return path


def read_stored(root: Path, plan: Plan) -> tuple[list[Stored], list[str]]:
    """(results of the plan's configurations in its order, names of results that belong to another configuration).

    Raises PipelineError for a damaged file, or when results were not measured on the same images.
    """
    found, foreign = [], []
    for variant, seed in plan.runs:
        path = result_file(root, plan, variant, seed)
        if not path.is_file():
            continue
        record = read_json(path, _REMEDY)
        if _is_of(record, plan.benchmarks[variant]):
            found.append(_with_counts(path, record))
        else:
            foreign.append(path.stem)
    for other in found[1:]:
        if other.ids != found[0].ids or other.record["data_fingerprint"] != found[0].record["data_fingerprint"]:
            raise PipelineError(
                f"{result_file(root, plan, other.variant, other.seed)}: measured on other data than "
                f"{found[0].variant}-{found[0].seed}; delete the results of one of them and run the study again"
            )
    return found, foreign


def late_loss(history: Path) -> float:
    """Mean cross entropy of the final logits over the last quarter of the training: does a variant fit its data?

    Variants of one seed see the same crops, so theirs can be compared.
    """
    curve = pd.read_csv(history, usecols=["iteration", "loss_final"])
    return round(float(curve["loss_final"][curve["iteration"] > 0.75 * curve["iteration"].max()].mean()), 4)


def result_table(stored: Sequence[Stored]) -> pd.DataFrame:
    """One row per training: scores as fractions, and what is needed to find or repeat it."""
    return pd.DataFrame(
        {
            "variant": run.variant,
            "seed": run.seed,
            **{f"{name}_miou": round(run.record["scores"][name]["miou"], 6) for name in PROTOCOLS},
            "training_loss": run.record["training_loss"],
            "validation_miou": round(run.record["validation"]["miou"], 6),
            **{f"ms_flip_{name}": iou for name, iou in run.record["class_iou"]["ms_flip"].items()},
            "training_seconds": run.record["training_seconds"],
            "evaluation_seconds": run.record["evaluation_seconds"],
            **{key: run.record[key] for key in _PROVENANCE},
            "hardware": run.record["hardware"]["gpu"] or run.record["hardware"]["cpu"],
        }
        for run in stored
    )


def _is_of(record: dict[str, Any], benchmark: Benchmark) -> bool:
    """Trained as the benchmark says, and tested as it says: other scales give other scores of the same weights."""
    return (record["config_hash"], record.get("evaluation_hash")) == (
        config_hash(benchmark),
        evaluation_hash(benchmark),
    )


def _with_counts(path: Path, record: dict[str, Any]) -> Stored:
    counts_file = path.with_suffix(".npz")
    try:
        with np.load(counts_file) as arrays:
            ids = tuple(arrays["ids"].tolist())
            counts = {name: Counts(*(arrays[f"{name}/{part}"] for part in Counts._fields)) for name in PROTOCOLS}
    except (OSError, KeyError, ValueError) as error:
        raise PipelineError(f"{counts_file}: no counts of {path.stem} ({error}); restore it from Git") from error
    return Stored(record["variant"], record["seed"], record, ids, counts)
