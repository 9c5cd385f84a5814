"""The model that a command names, and its card: a run of this project, or a safetensors file with its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Benchmark, config_hash, load_resolved
from pipeline.config.parse import parse, suggestion
from pipeline.config.schema import InferenceConfig
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.evaluation.run import load_model
from pipeline.export.card import Card, Evaluation, Licence, Provenance, Weights, read_card
from pipeline.files.storage import file_digest, read_json
from pipeline.layout import Layout
from pipeline.models import Segmentor

_ENDING = ".safetensors"
_REMEDY = "run `dvc repro`"


@dataclass(frozen=True)
class Source:
    """A model's name for files and messages, its card, and the weight file that the card describes."""

    name: str
    card: Card
    weights: Path

    def load(self) -> Segmentor:
        """The network, in evaluation mode, on the CPU."""
        return load_model(self.card.benchmark, len(self.card.classes), self.weights)


def find_model(root: Path, model: str) -> Source:
    """`model`: BENCHMARK/SEED of `runs/train` (with or without that prefix), or the path of a safetensors file.

    Raises PipelineError for an unknown run, and for a file whose card is missing or does not
    describe it.
    """
    if model.endswith(_ENDING):
        weights = Path(model)
        return Source(weights.stem, read_card(weights), weights)
    folder = Layout(root).root / "runs" / "train"
    runs = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/summary.json"))
    name = model.strip("/").removeprefix("runs/train/")
    if name not in runs:
        hint = suggestion(name, runs) if runs else "no run is finished, train one with `dvc repro`"
        raise PipelineError(f"--model {model}: no such run, and not a {_ENDING} file; {hint}")
    benchmark_id, seed = name.split("/")
    card, weights = describe_run(root, benchmark_id, int(seed))
    return Source(f"{benchmark_id}-seed{seed}", card, weights)


@dataclass(frozen=True)
class _Run:
    """Result files of a run. evaluation: metrics.json and details/evaluation.json in one, None for other weights."""

    trained: Benchmark
    summary: dict[str, Any]
    cost: dict[str, Any]
    evaluation: dict[str, Any] | None


def _read_run(layout: Layout, benchmark_id: str, seed: int) -> _Run:
    """Read what training and evaluation wrote; the only function here that knows the names of their files."""
    out, evaluated = layout.train(benchmark_id, seed), layout.evaluate(benchmark_id, seed)
    summary, cost = read_json(out / "summary.json", _REMEDY), read_json(out / "cost.json", _REMEDY)
    trained = load_resolved(out / "config.yaml")
    if config_hash(trained) != summary["config_hash"]:
        raise PipelineError(f"{out / 'config.yaml'}: not the configuration of summary.json beside it; {_REMEDY}")
    evaluation = None
    if (evaluated / "metrics.json").is_file():
        details = read_json(evaluated / "details" / "evaluation.json", _REMEDY)
        if details["run_key"] == summary["run_key"]:
            evaluation = details | read_json(evaluated / "metrics.json", _REMEDY)
    return _Run(trained, summary, cost, evaluation)


def describe_run(root: Path, benchmark_id: str, seed: int) -> tuple[Card, Path]:
    """Card and weight file of a trained or imported benchmark.

    The test protocol is that of the run's evaluation or, before it was evaluated, that of the plan. Raises
    PipelineError, naming the file and the remedy, when a file of the run is missing or belongs to another run.
    """
    layout = Layout(root)
    run = _read_run(layout, benchmark_id, seed)
    benchmark = _with_test_protocol(layout, run)
    out = layout.train(benchmark_id, seed)
    weights = out / f"{benchmark.inference.checkpoint}.safetensors"
    if not weights.is_file():
        raise PipelineError(
            f"{weights}: no such file; restore it with `dvc checkout {out.relative_to(root)}` or `dvc repro`"
        )
    spec = get_dataset(benchmark.dataset.name)
    scores = ("split", "images", "single_scale", "ms_flip")
    card = Card(
        benchmark=benchmark,
        seed=seed,
        classes=spec.classes,
        palette=spec.palette,
        flip_pairs=spec.flip_pairs,
        evaluation=run.evaluation and Evaluation(**{key: run.evaluation[key] for key in scores}),
        provenance=Provenance(
            **{key: run.summary[key] for key in ("config_hash", "run_key", "data_fingerprint", "precision")},
            started_from=run.summary["weights"],
            checkpoint=run.summary["checkpoint"],
            **{key: run.cost[key] for key in ("commit", "dirty", "finished", "libraries")},
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


def _with_test_protocol(layout: Layout, run: _Run) -> Benchmark:
    """The run's benchmark with its test protocol, which the configuration of a training leaves at the default."""
    trained, plan = run.trained, layout.resolved(run.trained.id)
    planned = load_resolved(plan) if plan.is_file() else None
    if planned is not None and config_hash(planned) != config_hash(trained):
        planned = None
    if run.evaluation is None:
        if planned is None:
            raise PipelineError(
                f"{plan}: does not describe this training of {trained.id}, which was not evaluated either, so its test "
                f"protocol is unknown; name {trained.id} in params.yaml and run `dvc repro`"
            )
        return planned
    inference = parse(InferenceConfig, run.evaluation["protocol"], f"evaluation of {trained.id}: protocol")
    if planned is not None:
        return planned.model_copy(update={"inference": inference})
    dataset = trained.dataset.model_copy(update={"evaluation_split": run.evaluation["split"]})
    return trained.model_copy(update={"inference": inference, "dataset": dataset})
