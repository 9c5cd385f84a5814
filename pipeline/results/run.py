"""One training with its evaluation: read from `runs/`, or from the record of it that a study keeps in Git.

A record is `<variant>-<seed>.json` (what ran, and its scores) and `.npz` beside it (the pixel counts per test image and
class, from which every interval is computed). One pair of files per training, so that processes which share a study
never write the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark, config_hash, evaluation_hash
from pipeline.config.parse import parse
from pipeline.config.schema import PRIMARY, PROTOCOLS, InferenceConfig
from pipeline.datasets import get_dataset, scored_split
from pipeline.datasets.prepared import read_info
from pipeline.errors import PipelineError
from pipeline.files.storage import file_digest, read_json, write_json
from pipeline.layout import Layout
from pipeline.results.metrics import Counts, iou
from pipeline.results.record import (
    BOUNDARY,
    DAMAGED_NPZ,
    EvaluationFiles,
    EvaluationRecord,
    ProtocolScores,
    TrainingFiles,
    read_counts,
    write_counts,
)

_REMEDY = "restore it from Git, or delete it and run the study again"


@dataclass(frozen=True)
class Run:
    """What comparisons and tables need of a run. `name` is the variant's, or the benchmark's id outside a study."""

    name: str
    seed: int
    config_hash: str
    evaluation_hash: str
    run_key: str
    data_fingerprint: str
    precision: str
    iterations: int
    parameters: dict[str, int]
    flops: int | None  # None in records of older commits
    split: str  # that was scored
    scores: dict[str, ProtocolScores]
    validation_miou: float | None  # of the last weights, single scale; None: imported
    training_loss: float | None  # see `record.late_loss`
    training_seconds: float
    evaluation_seconds: float
    finished: str
    commit: str | None
    dirty: bool
    hardware: dict[str, Any]
    libraries: dict[str, str]
    ids: tuple[str, ...]  # N images
    counts: dict[str, Counts]  # (N, K) by protocol and, except in records of older commits, BOUNDARY
    probes: dict[str, Counts] = field(default_factory=dict)  # by probe, see `evaluation.probes`; empty without memory
    attention_entropy: dict[str, float] = field(default_factory=dict)  # of the attention over memory and context
    validation_curve: tuple[tuple[int, float], ...] = ()  # (epoch, mIoU); empty: imported, or recorded by older commits
    command: str | None = None
    training: TrainingFiles | None = None  # None for a record in Git
    evaluation: EvaluationFiles | None = None
    recorded_weights: str | None = None  # sha256 in a record; None in those that older commits wrote

    def class_iou(self, protocol: str) -> NDArray[np.float64]:
        """IoU per class (K,), NaN for a class that neither occurs nor is predicted."""
        return iou(*self.counts[protocol].total())

    @cached_property
    def weights(self) -> str | None:
        """sha256 of the weights that were evaluated; None when it is not known."""
        if self.training is None or self.evaluation is None:
            return self.recorded_weights
        return file_digest(self.training.existing_weights(self.evaluation.record.checkpoint))

    def is_of(self, benchmark: Benchmark) -> bool:
        """Trained and tested as `benchmark` says: other test scales give other scores of the same weights."""
        return _hashes(benchmark) == (self.config_hash, self.evaluation_hash)


def read_run(layout: Layout, benchmark: Benchmark, seed: int, name: str = "") -> Run:
    """The run of `benchmark` below `runs/`.

    Raises PipelineError, naming the file and the stage to rerun, when a file is missing, unreadable, or of another
    configuration, of other data or of another training.
    """
    fingerprint = read_info(layout.prepared(benchmark.dataset.name))["fingerprint"]
    split = scored_split(benchmark.dataset, get_dataset(benchmark.dataset.name))
    training, evaluation = TrainingFiles(layout, benchmark.id, seed), EvaluationFiles(layout, benchmark.id, seed)
    training.require({"mode": benchmark.mode, "config_hash": config_hash(benchmark)}, "the plan")
    training.require({"data_fingerprint": fingerprint}, "the prepared data")
    trained, tested, cost = training.record, evaluation.record, training.cost
    evaluation.require({"config_hash": trained.config_hash, "run_key": trained.run_key}, "the training's summary.json")
    evaluation.require({"split": split, "protocol": benchmark.inference.model_dump(mode="json")}, "the plan")
    evaluation.require_consistent()
    ids, counts = evaluation.counts
    return Run(
        name=name or benchmark.id,
        seed=seed,
        config_hash=trained.config_hash,
        evaluation_hash=evaluation_hash(benchmark),
        run_key=trained.run_key,
        data_fingerprint=fingerprint,
        precision=trained.precision,
        iterations=trained.iterations,
        parameters=trained.parameters,
        flops=trained.flops,
        split=split,
        scores=tested.scores,
        validation_miou=trained.final and trained.final["miou"],
        training_loss=trained.training_loss,
        training_seconds=cost.seconds,
        evaluation_seconds=evaluation.cost.seconds,
        finished=cost.finished,
        commit=cost.commit,
        dirty=cost.dirty,
        hardware=cost.hardware,
        libraries=cost.libraries,
        ids=ids,
        counts=counts,
        probes=evaluation.probes,
        attention_entropy=tested.attention_entropy,
        validation_curve=tuple(
            zip(training.validation["epoch"].tolist(), training.validation["miou"].tolist(), strict=True)
        ),
        training=training,
        evaluation=evaluation,
    )


def as_tested(trained: Benchmark, record: EvaluationRecord) -> Benchmark:
    """`trained` as it was evaluated: a training's config.yaml has defaults for what only the evaluation reads."""
    # Without public labels the evaluation split went into archives for a server, and another one was scored.
    split = (record.submission or {"split": record.split})["split"]
    dataset = trained.dataset.model_copy(update={"evaluation_split": split})
    inference = parse(InferenceConfig, record.protocol, f"evaluation of {trained.id}: protocol")
    return trained.model_copy(update={"dataset": dataset, "inference": inference})


def record_path(folder: Path, name: str, seed: int) -> Path:
    """The JSON of a run in a study's folder of records; the counts have the same name with `.npz`."""
    return folder / f"{name}-{seed}.json"


def keep_record(run: Run, folder: Path, command: str, classes: Sequence[str]) -> Path:
    """Write the record of `run` to a study's folder; returns the JSON. command: what was typed to run it."""
    path = record_path(folder, run.name, run.seed)
    write_counts(path.with_suffix(".npz"), run.ids, run.counts | run.probes)
    data = {
        "variant": run.name,
        "seed": run.seed,
        "scores": {name: asdict(s) for name, s in run.scores.items()} | {"images": len(run.ids), "split": run.split},
        "validation": {"miou": run.validation_miou, "curve": run.validation_curve},
        "training_loss": run.training_loss,
        "class_iou": {p: dict(zip(classes, run.class_iou(p).round(6).tolist(), strict=True)) for p in PROTOCOLS},
        **{key: getattr(run, key) for key in _SAME},
        "training_seconds": round(run.training_seconds, 1),
        "evaluation_seconds": round(run.evaluation_seconds, 1),
        "uncommitted_changes": run.dirty,
        "weights": run.weights,
        "attention_entropy": run.attention_entropy,
        "flops": run.flops,
        "command": command,
    }
    write_json(path, data)  # last: its presence says that the record is complete
    return path


_SAME = (
    *("config_hash", "evaluation_hash", "run_key", "data_fingerprint", "precision", "iterations", "parameters"),
    *("finished", "commit", "hardware", "libraries"),
)  # fields of Run that the record holds under the same name


def has_record(folder: Path, name: str, seed: int, benchmark: Benchmark) -> bool:
    """Whether the record of a run is there and is of `benchmark`; its counts are not read."""
    path = record_path(folder, name, seed)
    if not path.is_file():
        return False
    data = read_json(path, _REMEDY)
    return _hashes(benchmark) == (data.get("config_hash"), data.get("evaluation_hash"))


def _hashes(benchmark: Benchmark) -> tuple[str, str]:
    return config_hash(benchmark), evaluation_hash(benchmark)


def read_record(folder: Path, name: str, seed: int) -> Run | None:
    """The record of a run; None when there is none. Raises PipelineError when it is damaged."""
    path = record_path(folder, name, seed)
    if not path.is_file():
        return None
    data = read_json(path, _REMEDY)
    try:
        ids, counts = read_counts(path.with_suffix(".npz"))
        return Run(
            name=data["variant"],
            seed=data["seed"],
            split=data["scores"]["split"],
            scores={protocol: ProtocolScores(**data["scores"][protocol]) for protocol in PROTOCOLS},
            validation_miou=data["validation"]["miou"],
            training_loss=data["training_loss"],
            training_seconds=data["training_seconds"],
            evaluation_seconds=data["evaluation_seconds"],
            dirty=data["uncommitted_changes"],
            ids=ids,
            counts={name: counts.pop(name) for name in (*PROTOCOLS, *BOUNDARY.values()) if name in counts},
            probes=counts,
            flops=data.get("flops"),
            attention_entropy=data.get("attention_entropy", {}),
            validation_curve=tuple((epoch, miou) for epoch, miou in data["validation"].get("curve", ())),
            command=data["command"],
            recorded_weights=data.get("weights"),
            **{key: data[key] for key in _SAME},
        )
    except (KeyError, TypeError, ValueError, OSError, *DAMAGED_NPZ) as error:
        raise PipelineError(f"{path}: damaged record, or without its .npz ({error}); {_REMEDY}") from error


def result_table(runs: Sequence[Run], classes: Sequence[str]) -> pd.DataFrame:
    """One row per run: scores as fractions, and what is needed to find or repeat it."""
    rows = []
    for run in runs:
        row = {"variant": run.name, "seed": run.seed}
        row |= {f"{protocol}_miou": round(run.scores[protocol].miou, 6) for protocol in PROTOCOLS}
        row |= {"training_loss": run.training_loss, "validation_miou": round(run.validation_miou or np.nan, 6)}
        row |= dict(zip([f"{PRIMARY}_{name}" for name in classes], run.class_iou(PRIMARY).round(6), strict=True))
        row |= {"training_seconds": run.training_seconds, "evaluation_seconds": run.evaluation_seconds}
        row |= {key: getattr(run, key) for key in ("config_hash", "evaluation_hash", "commit", "dirty", "command")}
        rows.append(row | {"finished": run.finished, "hardware": run.hardware["gpu"] or run.hardware["cpu"]})
    return pd.DataFrame(rows)
