"""Read what the stages wrote, and refuse what does not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark, Project, config_hash, load_project, load_resolved
from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Counts
from pipeline.evaluation.metrics import miou
from pipeline.layout import Layout
from pipeline.reporting.wording import PROTOCOLS

ContentT = TypeVar("ContentT")


@dataclass(frozen=True)
class Memory:
    """memory.npz: vectors (K, S, C) after the first epoch and at the end, and which were ever touched (K, S)."""

    first_epoch: NDArray[np.float32]
    final: NDArray[np.float32]
    touched: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One benchmark with one seed: everything its training and evaluation wrote, but the weights."""

    seed: int
    summary: dict[str, Any]
    cost: dict[str, Any]
    history: pd.DataFrame
    validation: pd.DataFrame
    memory: Memory | None
    metrics: dict[str, Any]
    evaluation: dict[str, Any]
    evaluation_cost: dict[str, Any]
    ids: tuple[str, ...]  # N evaluated images
    counts: dict[str, Counts]  # per protocol, each array (N, K)
    confusion: dict[str, NDArray[np.int64]]  # per protocol (K, K), row = truth
    predictions: Path  # folder of the stored ms+flip label maps

    def prediction_file(self, image_id: str) -> Path:
        """The stored label map of an image of the panel."""
        return self.predictions / f"{image_id.replace('/', '__')}.png"


@dataclass(frozen=True)
class Result:
    """One benchmark over all seeds, in the order of params.yaml."""

    benchmark: Benchmark
    runs: tuple[Run, ...]
    spec: DatasetSpec
    prepared: Prepared

    @property
    def id(self) -> str:
        """The benchmark's id."""
        return self.benchmark.id

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the N evaluated images, the same for every seed."""
        return self.runs[0].ids

    def counts(self, protocol: str) -> Counts:
        """Counts of every seed under one protocol, each array (S, N, K)."""
        return Counts(*(np.stack(parts) for parts in zip(*(run.counts[protocol] for run in self.runs), strict=True)))

    def confusion(self, protocol: str) -> NDArray[np.int64]:
        """Pixel counts (K, K) summed over the seeds, row = truth."""
        return np.sum([run.confusion[protocol] for run in self.runs], axis=0)

    @cached_property
    def class_share(self) -> NDArray[np.float64]:
        """Share of each class in the valid pixels of the evaluated split (K,)."""
        truth = self.runs[0].counts["single_scale"].truth.sum(axis=0)
        return truth / truth.sum()


@dataclass(frozen=True)
class Pair:
    """A benchmark with memory and the same framework without."""

    baseline: Result
    memory: Result


@dataclass(frozen=True)
class Study:
    """All that the report is about."""

    root: Path
    project: Project
    results: tuple[Result, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every chosen benchmark whose `baseline` is chosen too."""
        by_id = {result.id: result for result in self.results}
        return tuple(
            Pair(by_id[result.benchmark.baseline], result)
            for result in self.results
            if result.benchmark.baseline in by_id
        )

    @property
    def unpaired(self) -> tuple[Result, ...]:
        """Results that belong to no pair."""
        paired = {result.id for pair in self.pairs for result in (pair.baseline, pair.memory)}
        return tuple(result for result in self.results if result.id not in paired)


def read_study(root: Path) -> Study:
    """The results of the benchmarks and seeds chosen in params.yaml.

    Raises PipelineError, naming the file and the stage to rerun, for a missing, unreadable or inconsistent file.
    """
    project = load_project(root)
    results = tuple(_read_result(root, benchmark_id, project.seeds) for benchmark_id in project.benchmarks)
    study = Study(root, project, results)
    for pair in study.pairs:
        _check_pair(root, pair)
    return study


def _read_result(root: Path, benchmark_id: str, seeds: tuple[int, ...]) -> Result:
    layout = Layout(root)
    plan = layout.resolved(benchmark_id)
    if not plan.is_file():
        raise _rerun(root, plan, "no such file", "plan")
    benchmark = load_resolved(plan)
    prepared_dir = layout.prepared(benchmark.dataset.name)
    info = prepared_dir / "dataset.json"
    if not info.is_file():
        raise _rerun(root, info, "no such file", f"preprocess of {benchmark.dataset.name}")
    prepared = Prepared(prepared_dir)
    runs = tuple(_read_run(root, benchmark, seed, prepared.info["fingerprint"]) for seed in seeds)
    for run in runs[1:]:
        if run.ids != runs[0].ids:
            where = layout.evaluate(benchmark_id, run.seed) / "details" / "per_image.npz"
            raise _rerun(root, where, f"other images than seed {runs[0].seed}", f"evaluate-msflip of {benchmark_id}")
    return Result(benchmark, runs, get_dataset(benchmark.dataset.name), prepared)


def _read_run(root: Path, benchmark: Benchmark, seed: int, fingerprint: str) -> Run:
    layout = Layout(root)
    trained, evaluated = layout.train(benchmark.id, seed), layout.evaluate(benchmark.id, seed)
    details, curves = evaluated / "details", layout.curves(benchmark.id, seed)
    train_stage, evaluate_stage = (f"{stage} of {benchmark.id}, seed {seed}" for stage in ("train", "evaluate-msflip"))

    def train_file(path: Path, reader: Callable[[Path], ContentT]) -> ContentT:
        return _read(root, path, reader, train_stage)

    def evaluate_file(path: Path, reader: Callable[[Path], ContentT]) -> ContentT:
        return _read(root, path, reader, evaluate_stage)

    ids, counts = evaluate_file(details / "per_image.npz", _read_counts)
    run = Run(
        seed=seed,
        summary=train_file(trained / "summary.json", _read_json),
        cost=train_file(trained / "cost.json", _read_json),
        history=train_file(curves / "history.csv", pd.read_csv),
        validation=train_file(curves / "validation.csv", pd.read_csv),
        memory=train_file(trained / "memory.npz", _read_memory) if benchmark.memory is not None else None,
        metrics=evaluate_file(evaluated / "metrics.json", _read_json),
        evaluation=evaluate_file(details / "evaluation.json", _read_json),
        evaluation_cost=evaluate_file(evaluated / "cost.json", _read_json),
        ids=ids,
        counts=counts,
        confusion=evaluate_file(details / "confusion.npz", lambda path: _read_arrays(path, tuple(PROTOCOLS))),
        predictions=details / "predictions",
    )
    summary = trained / "summary.json"
    _agree(root, summary, "config_hash", run.summary, config_hash(benchmark), "the plan", train_stage)
    _agree(root, summary, "data_fingerprint", run.summary, fingerprint, "the prepared data", train_stage)
    evaluation = details / "evaluation.json"
    for key in ("config_hash", "run_key"):
        _agree(root, evaluation, key, run.evaluation, run.summary[key], "the training's summary.json", evaluate_stage)
    expected = {
        "split": benchmark.dataset.evaluation_split,
        "protocol": benchmark.inference.model_dump(mode="json"),
        "images": len(ids),
    }
    for key, value in expected.items():
        _agree(root, evaluation, key, run.evaluation, value, "the plan or per_image.npz", evaluate_stage)
    for protocol in PROTOCOLS:
        _check_scores(root, details, run, protocol, evaluate_stage)
    return run


def _check_scores(root: Path, details: Path, run: Run, protocol: str, stage: str) -> None:
    """metrics.json, per_image.npz and confusion.npz tell the same story."""
    totals = Counts(*(part.sum(axis=0) for part in run.counts[protocol]))
    if not np.isclose(miou(*totals), run.metrics[protocol]["miou"], rtol=0, atol=1e-9):
        found = run.metrics[protocol]["miou"]
        problem = f"{protocol}.miou is {found}, but per_image.npz gives {float(miou(*totals))}"
        raise _rerun(root, details.parent / "metrics.json", problem, stage)
    matrix = run.confusion[protocol]
    same = [
        np.array_equal(*pair) for pair in zip((matrix.diagonal(), matrix.sum(0), matrix.sum(1)), totals, strict=True)
    ]
    if not all(same):
        raise _rerun(root, details / "confusion.npz", f"{protocol}: other pixel counts than per_image.npz", stage)


def _check_pair(root: Path, pair: Pair) -> None:
    """A gain is only paired when both sides saw the same images."""
    if pair.baseline.ids != pair.memory.ids:
        where = Layout(root).evaluate(pair.memory.id, pair.memory.runs[0].seed) / "details" / "per_image.npz"
        raise _rerun(
            root,
            where,
            f"{len(pair.memory.ids)} image ids that are not those of its baseline {pair.baseline.id} "
            f"({len(pair.baseline.ids)} ids), so the gain cannot be paired",
            f"evaluate-msflip of {pair.memory.id} and {pair.baseline.id}",
        )


def _agree(root: Path, path: Path, key: str, data: dict[str, Any], expected: Any, source: str, stage: str) -> None:
    if data.get(key) != expected:
        raise _rerun(root, path, f"{key} is {data.get(key)!r}, but {source} says {expected!r}", stage)


def _read(root: Path, path: Path, reader: Callable[[Path], ContentT], stage: str) -> ContentT:
    try:
        return reader(path)
    except FileNotFoundError:
        raise _rerun(root, path, "no such file", stage) from None
    except (ValueError, KeyError, OSError) as error:
        raise _rerun(root, path, f"cannot be read ({error})", stage) from error


def _rerun(root: Path, path: Path, problem: str, stage: str) -> PipelineError:
    return PipelineError(f"{path.relative_to(root)}: {problem}; rerun the stage {stage}: `dvc repro`")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in names}


def _read_memory(path: Path) -> Memory:
    return Memory(**_read_arrays(path, ("first_epoch", "final", "touched")))


def _read_counts(path: Path) -> tuple[tuple[str, ...], dict[str, Counts]]:
    with np.load(path) as archive:
        ids = tuple(str(image_id) for image_id in archive["ids"])
        counts = {p: Counts(*(archive[f"{p}/{part}"] for part in Counts._fields)) for p in PROTOCOLS}
    return ids, counts
