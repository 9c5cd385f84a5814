"""Put the files of a finished stage into its run: once when the stage ends, or later by `sync`."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from pipeline.config import Benchmark
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.files.storage import read_json
from pipeline.layout import Layout
from pipeline.tracking.curves import logged_steps, read_curves, send_points
from pipeline.tracking.identity import TRAIN, Identity, Stage
from pipeline.tracking.model import log_model
from pipeline.tracking.tree import dataset_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROTOCOLS = ("single_scale", "ms_flip")
_GIB = 2**30
_REMEDY = "this result cannot be tracked without; `dvc checkout` restores it from the cache, `dvc repro` makes it anew"
Clock = Callable[[int], int]  # step -> time in ms since 1970


@dataclass(frozen=True)
class Target:
    """The run of a stage and its parent. The run must be MLflow's active one, since models are logged to that."""

    client: MlflowClient
    run_id: str
    parent_id: str


def now(_step: int) -> int:
    """The clock of a stage that has just run."""
    return int(time.time() * 1000)


def publish(target: Target, identity: Identity, stage: Stage, layout: Layout, clock: Clock = now) -> None:
    """Everything the finished stage wrote that the run lacks, then the tag `complete`.

    Raises PipelineError when a file of the stage is missing.
    """
    try:
        if stage == TRAIN:
            _publish_training(target, identity, layout, clock)
        else:
            _publish_evaluation(target, identity, layout.evaluate(identity.benchmark.id, identity.seed))
    except FileNotFoundError as error:
        raise _incomplete(error) from error
    target.client.set_tag(target.run_id, "complete", "true")


def _publish_training(target: Target, identity: Identity, layout: Layout, clock: Clock) -> None:
    folder = layout.train(identity.benchmark.id, identity.seed)
    curves = layout.curves(identity.benchmark.id, identity.seed)
    summary, cost = read_output(folder / "summary.json"), read_output(folder / "cost.json")
    known = logged_steps(target.client, target.run_id)
    missing = [point for point in read_curves(curves) if point[1] not in known.get(point[0], ())]
    send_points(target.client, target.run_id, [(point, clock(point[1])) for point in missing])
    headline = {
        "train_seconds": cost["seconds"],
        "peak_memory_gib": cost["peak_memory_bytes"] / _GIB,
        "parameters_million": summary["parameters"]["total"] / 1e6,
    }
    if identity.benchmark.mode == "train":  # an imported checkpoint was neither trained nor validated here
        headline |= {
            "miou_validation": summary["final"]["miou"],
            "miou_validation_best": summary["best"]["miou"],
            "train_loss": summary["final"]["loss"],
            "seconds_per_iteration": cost["seconds_per_iteration"],
        }
    _log_scalars(target.client, target.run_id, headline)
    _log_scalars(target.client, target.parent_id, headline)
    for path in sorted([*folder.iterdir(), *curves.iterdir()]):
        if path.suffix != ".safetensors":  # the model is logged in a form that loads by itself
            target.client.log_artifact(target.run_id, str(path))
    _log_segmentor(target, identity.benchmark, folder)


def _log_segmentor(target: Target, benchmark: Benchmark, folder: Path) -> None:
    from pipeline.evaluation.run import load_model  # networks take seconds to import, and most syncs need none

    classes = get_dataset(benchmark.dataset.name).classes
    model = load_model(benchmark, len(classes), folder / "last.safetensors")
    model_id = log_model(target.run_id, model)
    for run_id in (target.run_id, target.parent_id):
        target.client.set_tag(run_id, "model_id", model_id)


def _publish_evaluation(target: Target, identity: Identity, folder: Path) -> None:
    metrics, cost = read_output(folder / "metrics.json"), read_output(folder / "cost.json")
    per_class = pd.read_csv(folder / "details" / "per_class.csv")
    headline = {f"{score}_{protocol}": value for protocol in PROTOCOLS for score, value in metrics[protocol].items()}
    classes = {
        f"iou_{protocol}/{_metric_name(row['class'])}": row[f"{protocol}_iou"]
        for protocol in PROTOCOLS
        for row in per_class.to_dict("records")
    }
    scalars = headline | classes | {"evaluate_seconds": cost["seconds"], "images": metrics["images"]}
    parent_tags = target.client.get_run(target.parent_id).data.tags
    model_id = parent_tags.get("model_id") if identity.benchmark.inference.checkpoint == "last" else None
    _log_scalars(target.client, target.run_id, scalars, model_id=model_id, identity=identity)
    _log_scalars(target.client, target.parent_id, headline | {"evaluate_seconds": cost["seconds"]})
    for path in (folder / "metrics.json", folder / "cost.json"):
        target.client.log_artifact(target.run_id, str(path))
    details = folder / "details"
    for path in sorted(path for path in details.iterdir() if path.is_file()):
        target.client.log_artifact(target.run_id, str(path), "details")
    palette = get_dataset(identity.benchmark.dataset.name).palette
    with tempfile.TemporaryDirectory() as temporary:
        for path in sorted((details / "predictions").glob("*.png")):
            _paint(path, palette, Path(temporary) / path.name)
        target.client.log_artifacts(target.run_id, temporary, "predictions")


def _paint(labels: Path, palette: tuple[tuple[int, int, int], ...], out: Path) -> None:
    """Copy a label map with the dataset's colours: the values stay train ids, but a viewer shows more than black."""
    image = Image.open(labels).convert("L")
    image.putpalette([value for colour in palette for value in colour])
    image.save(out)


def _log_scalars(
    client: MlflowClient,
    run_id: str,
    values: Mapping[str, float],
    model_id: str | None = None,
    identity: Identity | None = None,
) -> None:
    """Single numbers, linked to the model and the data they were measured with. A class that never occurs has none."""
    from mlflow.entities import Metric

    stamp = now(0)
    data = identity.benchmark.dataset.name if identity and identity.fingerprint else None
    digest = dataset_digest(identity.fingerprint) if identity and identity.fingerprint else None
    known = client.get_run(run_id).data.metrics  # a repeated stage repeats its numbers: one point is enough
    metrics = [
        Metric(name, float(value), stamp, 0, model_id=model_id, dataset_name=data, dataset_digest=digest, run_id=run_id)
        for name, value in values.items()
        if not math.isnan(value) and known.get(name) != value
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics)


def _metric_name(text: str) -> str:
    """A class name in the characters that MLflow allows, without the slash, which would nest it."""
    return re.sub(r"[^A-Za-z0-9_\-. ]", "_", text)


def read_output(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, a file of a finished stage. Raises PipelineError when it is missing or damaged."""
    return read_json(path, _REMEDY)


def _incomplete(error: FileNotFoundError) -> PipelineError:
    return PipelineError(f"{error.filename or error}: no such file; {_REMEDY}")
