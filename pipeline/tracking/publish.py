"""Log what a finished stage wrote to its run: when the stage ends, or later in `sync`."""

from __future__ import annotations

import datetime
import math
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.datasets import get_dataset
from pipeline.layout import Layout
from pipeline.results.metrics import miou, summarise
from pipeline.results.record import EvaluationFiles, TrainingFiles
from pipeline.tracking.identity import DIGEST_LENGTH, TrackedStage
from pipeline.tracking.model import log_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. ]")
_CURVES = ("train/", "validation/")  # the UI groups by the part before the slash


@dataclass(frozen=True)
class OpenRun:
    """The run of a stage and its parent."""

    client: MlflowClient
    run_id: str
    parent_id: str
    stage: TrackedStage


def publish(run: OpenRun, layout: Layout) -> None:
    """Log everything that the finished stage wrote and `run` lacks, then tag it `complete`.

    The run must be MLflow's active one, to which models are logged. Raises PipelineError for a missing or damaged file.
    """
    benchmark, seed = run.stage.benchmark.id, run.stage.seed
    if run.stage.name == "train":
        _publish_training(run, TrainingFiles(layout, benchmark, seed))
    else:
        _publish_evaluation(run, EvaluationFiles(layout, benchmark, seed))
    run.client.set_tag(run.run_id, "complete", "true")


def logged_steps(client: MlflowClient, run_id: str) -> dict[str, set[int]]:
    """Steps of every curve that a run has."""
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(_CURVES)]
    return {name: {point.step for point in client.get_metric_history(run_id, name)} for name in names}


def milliseconds(timestamp: str) -> int:
    """An ISO 8601 time as ms since 1970, MLflow's unit."""
    return int(datetime.datetime.fromisoformat(timestamp).timestamp() * 1000)


def _publish_training(run: OpenRun, files: TrainingFiles) -> None:
    from pipeline.models import load_segmentor  # networks take seconds to import, and most syncs need none

    record, cost, benchmark = files.record, files.cost, run.stage.benchmark
    run.client.log_batch(run.run_id, metrics=_missing_points(run, files))
    headline = {
        "train_seconds": cost.seconds,
        "seconds_per_iteration": cost.seconds_per_iteration,
        "peak_memory_gib": cost.peak_memory_bytes / 2**30,
        "parameters_million": record.parameters["total"] / 1e6,
        "miou_validation": record.final and record.final["miou"],
        "miou_validation_best": record.best and record.best["miou"],
        "training_loss": record.training_loss,
    }
    _log_scalars(run, run.run_id, headline)
    _log_scalars(run, run.parent_id, headline)
    for path in files.artifacts():
        run.client.log_artifact(run.run_id, str(path))
    classes = get_dataset(benchmark.dataset.name).classes
    model_id = log_model(run.run_id, load_segmentor(benchmark, len(classes), files.existing_weights("last")))
    for run_id in (run.run_id, run.parent_id):
        run.client.set_tag(run_id, "model_id", model_id)


def _missing_points(run: OpenRun, files: TrainingFiles) -> list[Metric]:
    """Points of the curves that the run lacks, spread evenly over the time that the training took."""
    from mlflow.entities import Metric

    known = logged_steps(run.client, run.run_id)
    started, finished = milliseconds(files.cost.started), milliseconds(files.cost.finished)
    points: list[Metric] = []
    for section, table in zip(_CURVES, (files.history, files.validation.drop(columns="epoch")), strict=True):
        for row in table.to_dict("records"):
            step = int(row.pop("iteration"))
            stamp = started + (finished - started) * step // max(files.record.iterations, 1)
            values = {f"{section}{name}": float(value) for name, value in row.items() if not math.isnan(value)}
            points += [Metric(n, v, stamp, step) for n, v in values.items() if step not in known.get(n, ())]
    return points


def _publish_evaluation(run: OpenRun, files: EvaluationFiles) -> None:
    record, spec = files.record, get_dataset(run.stage.benchmark.dataset.name)
    headline = {f"{name}_{protocol}": v for protocol, s in record.scores.items() for name, v in asdict(s).items()}
    headline |= {f"miou_probe_{name}": float(miou(*counts.total())) for name, counts in files.probes.items()}
    headline |= {f"attention_entropy_{name}": value for name, value in record.attention_entropy.items()}
    headline["evaluate_seconds"] = files.cost.seconds
    classes = {  # with the characters that MLflow allows, without the slash, which would nest the name
        f"iou_{protocol}/{_NOT_IN_NAMES.sub('_', name)}": value
        for protocol, confusion in files.confusion.items()
        for name, value in zip(spec.classes, summarise(confusion).class_iou, strict=True)
    }
    model_id = run.client.get_run(run.parent_id).data.tags.get("model_id") if record.checkpoint == "last" else None
    on_data = {"model_id": model_id, "dataset_name": spec.name, "dataset_digest": run.stage.fingerprint[:DIGEST_LENGTH]}
    _log_scalars(run, run.run_id, headline | classes | {"images": record.images}, **on_data)
    _log_scalars(run, run.parent_id, headline)
    for path in files.artifacts():
        run.client.log_artifact(run.run_id, str(path), "details" if path.parent == files.details else None)
    with tempfile.TemporaryDirectory() as folder:
        for path in files.predictions():
            image = Image.open(path).convert("L")  # with colours for viewers; the pixel values remain train ids
            image.putpalette([value for colour in spec.palette for value in colour])
            image.save(Path(folder) / path.name)
        run.client.log_artifacts(run.run_id, folder, "predictions")


def _log_scalars(run: OpenRun, run_id: str, values: Mapping[str, float | None], **links: str | None) -> None:
    """Log single numbers to the run or its parent, with links to the model and the data they were measured with.

    None (an import is neither trained nor validated), NaN (a class never occurs) and numbers that the run already has
    are left out.
    """
    from mlflow.entities import Metric

    stamp = int(time.time() * 1000)
    known = run.client.get_run(run_id).data.metrics
    present = {name: float(v) for name, v in values.items() if v is not None and not math.isnan(v)}
    new = [Metric(name, v, stamp, 0, run_id=run_id, **links) for name, v in present.items() if known.get(name) != v]
    run.client.log_batch(run_id, metrics=new)
