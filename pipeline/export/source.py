"""The model that a command names, and its card: a run of this project, or a safetensors file with its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Benchmark, config_hash, load_resolved
from pipeline.config.parse import suggestion
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.export.card import Card, Evaluation, Licence, Provenance, Weights, read_card
from pipeline.files.storage import file_digest
from pipeline.layout import Layout
from pipeline.models import Segmentor, load_segmentor
from pipeline.results.record import EvaluationFiles, EvaluationRecord, TrainingFiles, finished_trainings
from pipeline.results.run import as_tested

_ENDING = ".safetensors"


@dataclass(frozen=True)
class Source:
    """A model's name for files and messages, its card, and the weight file that the card describes."""

    name: str
    card: Card
    weights: Path

    def load(self) -> Segmentor:
        """The network, in evaluation mode, on the CPU."""
        return load_segmentor(self.card.benchmark, len(self.card.classes), self.weights)


def find_model(root: Path, model: str) -> Source:
    """`model`: BENCHMARK/SEED of `runs/train` (with or without that prefix), or the path of a safetensors file.

    Raises PipelineError for an unknown run, and for a file whose card is missing or does not describe it.
    """
    if model.endswith(_ENDING):
        weights = Path(model)
        return Source(weights.stem, read_card(weights), weights)
    layout = Layout(root)
    runs = [f"{files.benchmark}/{files.seed}" for files in finished_trainings(layout)]
    name = model.strip("/").removeprefix("runs/train/")
    if name not in runs:
        hint = suggestion(name, runs) if runs else "no run is finished, train one with `dvc repro`"
        raise PipelineError(f"--model {model}: no such run, and not a {_ENDING} file; {hint}")
    benchmark_id, seed = name.split("/")
    card, weights = describe_run(layout, benchmark_id, int(seed))
    return Source(f"{benchmark_id}-seed{seed}", card, weights)


def describe_run(layout: Layout, benchmark_id: str, seed: int) -> tuple[Card, Path]:
    """Card and weight file of a trained or imported benchmark.

    The test protocol is that of the run's evaluation or, before it was evaluated, that of the plan. Raises
    PipelineError, naming the file and the remedy, when a file of the run is missing or belongs to another run.
    """
    files, evaluation = TrainingFiles(layout, benchmark_id, seed), EvaluationFiles(layout, benchmark_id, seed)
    record, cost = files.record, files.cost
    files.require({"config_hash": config_hash(files.config)}, "config.yaml beside it")
    tested = evaluation.record if evaluation.is_complete else None
    tested = tested if tested and tested.run_key == record.run_key else None  # else of other weights
    benchmark = _with_test_protocol(layout, files.config, tested)
    if benchmark.inference.cascade != "none":
        raise PipelineError(
            f"{benchmark_id}: inference.cascade: {benchmark.inference.cascade} takes two passes, but `predict` and "
            "`export` make one; set it to none and evaluate again"
        )
    weights = files.existing_weights(benchmark.inference.checkpoint)
    spec = get_dataset(benchmark.dataset.name)
    card = Card(
        benchmark=benchmark,
        seed=seed,
        classes=spec.classes,
        palette=spec.palette,
        flip_pairs=spec.flip_pairs,
        evaluation=tested and Evaluation(split=tested.split, images=tested.images, **tested.scores),
        provenance=Provenance(
            **{key: getattr(record, key) for key in ("config_hash", "run_key", "data_fingerprint", "precision")},
            **{key: getattr(cost, key) for key in ("commit", "dirty", "finished", "libraries")},
            started_from=record.weights,
            checkpoint=record.checkpoint,
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


def _with_test_protocol(layout: Layout, trained: Benchmark, tested: EvaluationRecord | None) -> Benchmark:
    """`trained` with its test protocol, which the configuration of a training leaves at the default."""
    plan = layout.resolved(trained.id)
    planned = load_resolved(plan) if plan.is_file() else None
    fits = planned is not None and config_hash(planned) == config_hash(trained)
    if tested is not None:
        return as_tested(planned if fits else trained, tested)
    if not fits:
        raise PipelineError(
            f"{plan}: does not describe this training of {trained.id}, which was not evaluated either, so its test "
            f"protocol is unknown; name {trained.id} in params.yaml and run `dvc repro`"
        )
    return planned
