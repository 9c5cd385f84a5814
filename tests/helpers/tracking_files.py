"""Result files of a training and an evaluation as the stages write them, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers.trained_run import write_counted
from pipeline.config import Benchmark, for_training
from pipeline.config.schema import PROTOCOLS, RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.files.storage import write_json
from pipeline.layout import Layout
from pipeline.models import build_segmentor
from pipeline.results.metrics import Counts
from pipeline.results.record import Cost, EvaluationFiles, ProtocolScores, TrainingFiles
from pipeline.tracking.runs import stage_run
from pipeline.training.loop import Progress, save_weights
from pipeline.training.outcome import training_record
from pipeline.training.state import identify

RUNTIME = RuntimeConfig(device="cpu")
FINGERPRINT = "f" * 64
ITERATIONS = (10, 20, 30, 40)
IDS = ("scene/1", "scene/2", "scene/3")


def training_points() -> list[tuple[int, dict[str, float]]]:
    """What the training loop logs, in order."""
    points = [(i, {"train/epoch": 1 + i // 40, "train/lr": 0.01, "train/loss": 3.0 / i}) for i in ITERATIONS]
    return [*points, (40, {"validation/miou": 0.5, "validation/pixel_accuracy": 0.9})]


def write_prepared(root: Path) -> None:
    """As much of the prepared digits as tracking looks at."""
    folder = Layout(root).prepared("digits")
    write_json(folder / "dataset.json", {"fingerprint": FINGERPRINT})
    pd.DataFrame({"id": []}).to_parquet(folder / "table.parquet")


def write_training(root: Path, benchmark: Benchmark) -> Path:
    """A finished training with the weights of a fresh network; returns its folder."""
    files = TrainingFiles(Layout(root), benchmark.id, 0)
    model = build_segmentor(benchmark, len(get_dataset(benchmark.dataset.name).classes), pretrained=False)
    for name in ("last", "best"):
        save_weights(model, files.weights(name))
    trained = for_training(benchmark)
    *history, _ = training_points()
    rows = [{"iteration": i} | {name.removeprefix("train/"): v for name, v in values.items()} for i, values in history]
    for row in rows:
        row["loss_final"] = row["loss"]
    validation = [{"epoch": 2, "iteration": 40, "miou": 0.5, "pixel_accuracy": 0.9}]
    identity = identify(Layout(root), benchmark, 0, RuntimeConfig())
    progress = Progress(iteration=40, history=rows, validation=validation)
    record = training_record(trained, model, 0, identity, (), progress)
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00"}
    code = {"hardware": {}, "libraries": {}, "commit": "c0ffee", "dirty": False}
    cost = Cost(60.0, seconds_per_iteration=1.5, peak_memory_bytes=2**30, device="cpu", **code, **times)
    files.write(trained, record, cost, None, rows, validation)
    return files.folder


def write_evaluation(root: Path, benchmark: Benchmark) -> EvaluationFiles:
    """A finished evaluation; the last class of the dataset never occurs and has no IoU."""
    rng = np.random.default_rng(0)
    truth = rng.integers(50, 100, (len(IDS), len(get_dataset(benchmark.dataset.name).classes)))
    truth[:, -1] = 0
    counts = Counts(truth - 10 * (truth > 0), truth, truth)  # (N, K)
    training = TrainingFiles(Layout(root), benchmark.id, 0).record
    identity = {"config_hash": training.config_hash, "run_key": training.run_key}
    scores = dict.fromkeys(PROTOCOLS, ProtocolScores(0.6, 0.55, 0.65, pixel_accuracy=0.9, mean_accuracy=0.7))
    files = write_counted(
        root, benchmark, 0, IDS, dict.fromkeys(PROTOCOLS, counts), panel=[IDS[0]], scores=scores, **identity
    )
    files.prediction(IDS[0]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), 2, np.uint8)).save(files.prediction(IDS[0]))
    return files


def track_both_stages(root: Path, benchmark: Benchmark) -> None:
    """A training and an evaluation as the stages track them."""
    with stage_run(root, benchmark, 0, "train", RUNTIME) as run:
        for step, values in training_points():
            run.log(step, values)
        write_training(root, benchmark)
    with stage_run(root, benchmark, 0, "evaluate-msflip", RUNTIME):
        write_evaluation(root, benchmark)
