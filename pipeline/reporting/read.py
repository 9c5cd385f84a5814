"""Read what the stages wrote, and refuse what does not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark, config_hash, load_project, load_resolved
from pipeline.datasets import get_dataset, scored_split
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.reporting.results import Memory, Pair, Result, Run, Study
from pipeline.reporting.wording import PROTOCOLS
from pipeline.results.bootstrap import Counts
from pipeline.results.metrics import miou
from pipeline.results.published import published_benchmarks

ContentT = TypeVar("ContentT")


def read_study(root: Path) -> Study:
    """The results of the benchmarks and seeds chosen in params.yaml.

    Raises PipelineError, naming the file and the stage to rerun, for a missing, unreadable or inconsistent file.
    """
    project = load_project(root)
    results = tuple(_read_result(root, benchmark_id, project.seeds) for benchmark_id in project.benchmarks)
    study = Study(root, project, results, published_benchmarks(root))
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
        memory=train_file(trained / "memory.npz", partial(_read_memory, benchmark.mode)) if benchmark.memory else None,
        metrics=evaluate_file(evaluated / "metrics.json", _read_json),
        evaluation=evaluate_file(details / "evaluation.json", _read_json),
        evaluation_cost=evaluate_file(evaluated / "cost.json", _read_json),
        ids=ids,
        counts=counts,
        confusion=evaluate_file(details / "confusion.npz", lambda path: _read_arrays(path, tuple(PROTOCOLS))),
        predictions=details / "predictions",
    )
    summary = trained / "summary.json"
    _agree(root, summary, "mode", run.summary, benchmark.mode, "the plan", train_stage)
    _agree(root, summary, "config_hash", run.summary, config_hash(benchmark), "the plan", train_stage)
    _agree(root, summary, "data_fingerprint", run.summary, fingerprint, "the prepared data", train_stage)
    evaluation = details / "evaluation.json"
    for key in ("config_hash", "run_key"):
        _agree(root, evaluation, key, run.evaluation, run.summary[key], "the training's summary.json", evaluate_stage)
    expected = {
        "split": scored_split(benchmark.dataset, get_dataset(benchmark.dataset.name)),
        "submission": run.metrics.get("submission"),
        "protocol": benchmark.inference.model_dump(mode="json"),
        "images": len(ids),
    }
    for key, value in expected.items():
        _agree(root, evaluation, key, run.evaluation, value, "the plan or another file", evaluate_stage)
    _agree(root, evaluated / "metrics.json", "split", run.metrics, expected["split"], "the plan", evaluate_stage)
    for name in (run.metrics.get("submission") or {"files": {}})["files"].values():
        if not (evaluated / name).is_file():
            raise _rerun(root, evaluated / name, "no such file", evaluate_stage)
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


def _read_memory(mode: str, path: Path) -> Memory:
    if mode == "import":
        return Memory(first_epoch=None, **_read_arrays(path, ("final", "touched")))
    return Memory(**_read_arrays(path, ("first_epoch", "final", "touched")))


def _read_counts(path: Path) -> tuple[tuple[str, ...], dict[str, Counts]]:
    with np.load(path) as archive:
        ids = tuple(str(image_id) for image_id in archive["ids"])
        counts = {p: Counts(*(archive[f"{p}/{part}"] for part in Counts._fields)) for p in PROTOCOLS}
    return ids, counts
