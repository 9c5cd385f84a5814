"""The card of a run of this project, from the files that training and evaluation wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import Benchmark, config_hash, load_resolved
from pipeline.config.parse import parse
from pipeline.config.schema import InferenceConfig
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.export.card import Card, Evaluation, Licence, Provenance, Weights
from pipeline.files.storage import file_digest, read_json
from pipeline.layout import Layout

_REMEDY = "run `dvc repro`"
_PROTOCOLS = ("single_scale", "ms_flip")


def describe_run(root: Path, benchmark_id: str, seed: int) -> tuple[Card, Path]:
    """Card and weight file of a trained or imported benchmark.

    The test protocol is the one that the run was evaluated with or, before its evaluation, that of the plan. Raises
    PipelineError, naming the file and the remedy, when one of the run's files is missing or another run's.
    """
    layout = Layout(root)
    out = layout.train(benchmark_id, seed)
    summary, cost = read_json(out / "summary.json", _REMEDY), read_json(out / "cost.json", _REMEDY)
    trained = load_resolved(out / "config.yaml")
    if config_hash(trained) != summary["config_hash"]:
        raise PipelineError(f"{out / 'config.yaml'}: not the configuration of summary.json beside it; run `dvc repro`")
    measured = _evaluation(layout, benchmark_id, seed, summary["run_key"])
    benchmark = _benchmark(layout, trained, measured)
    weights = out / f"{benchmark.inference.checkpoint}.safetensors"
    if not weights.is_file():
        raise PipelineError(f"{weights}: no such file; `dvc checkout {out.relative_to(root)}` or `dvc repro` brings it")
    spec = get_dataset(benchmark.dataset.name)
    card = Card(
        benchmark=benchmark,
        seed=seed,
        classes=spec.classes,
        palette=spec.palette,
        flip_pairs=spec.flip_pairs,
        evaluation=measured and _scores(measured),
        provenance=Provenance(
            **{key: summary[key] for key in ("config_hash", "run_key", "data_fingerprint", "precision", "checkpoint")},
            started_from=summary["weights"],
            **{key: cost[key] for key in ("commit", "dirty", "finished", "libraries")},
        ),
        licence=Licence(dataset=spec.name, terms=spec.licence, homepage=spec.homepage),
        weights=Weights(
            file=weights.name,
            bytes=weights.stat().st_size,
            sha256=file_digest(weights),
            checkpoint=benchmark.inference.checkpoint,
        ),
    )
    return card, weights


def _evaluation(layout: Layout, benchmark_id: str, seed: int, run_key: str) -> dict[str, Any] | None:
    """metrics.json and details/evaluation.json in one; None unless these very weights were evaluated."""
    out = layout.evaluate(benchmark_id, seed)
    if not (out / "metrics.json").is_file():
        return None
    details = read_json(out / "details" / "evaluation.json", _REMEDY)
    return details | read_json(out / "metrics.json", _REMEDY) if details["run_key"] == run_key else None


def _benchmark(layout: Layout, trained: Benchmark, measured: dict[str, Any] | None) -> Benchmark:
    """The benchmark with its test protocol, which the configuration of a training leaves at the default."""
    plan = layout.resolved(trained.id)
    planned = load_resolved(plan) if plan.is_file() else None
    if planned is not None and config_hash(planned) != config_hash(trained):
        planned = None
    if measured is None:
        if planned is None:
            raise PipelineError(
                f"{plan}: does not describe this training of {trained.id}, and it was not evaluated, so its test "
                f"protocol is unknown; name {trained.id} in params.yaml and run `dvc repro`"
            )
        return planned
    inference = parse(InferenceConfig, measured["protocol"], f"evaluation of {trained.id}: protocol")
    if planned is not None:
        return planned.model_copy(update={"inference": inference})
    dataset = trained.dataset.model_copy(update={"evaluation_split": measured["split"]})
    return trained.model_copy(update={"inference": inference, "dataset": dataset})


def _scores(measured: dict[str, Any]) -> Evaluation:
    return Evaluation(**{key: measured[key] for key in ("split", "images", *_PROTOCOLS)})
