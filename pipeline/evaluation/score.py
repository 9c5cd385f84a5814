"""Evaluate one trained benchmark under both protocols in one pass and write the files of `runs/evaluate`."""

from __future__ import annotations

import time
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark
from pipeline.config.schema import PRIMARY, RuntimeConfig
from pipeline.datasets import get_dataset, scored_split
from pipeline.datasets.prepared import Prepared
from pipeline.evaluation.evaluate import Evaluated, OnPrediction, Prediction, by_protocol, evaluate_split
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.evaluation.probes import probe_split
from pipeline.evaluation.submission import joined, submission_archives
from pipeline.files.storage import write_png
from pipeline.layout import Layout
from pipeline.models import load_segmentor
from pipeline.results.metrics import Counts, miou, summarise
from pipeline.results.record import (
    BOUNDARY,
    EvaluationCost,
    EvaluationFiles,
    EvaluationRecord,
    ProtocolScores,
    TrainingFiles,
)
from pipeline.results.statistics import frame_blocks, scores
from pipeline.runtime.device import resolve_device, set_kernels
from pipeline.runtime.distributed import gather_on_main, ranks

PANEL_IMAGES = 8  # label maps kept for the report's pictures


def evaluate_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> Path:
    """Single-scale and ms+flip scores of the checkpoint that `inference.checkpoint` names; returns their folder.

    Of a network with memory, also the counts of its probes.

    When the labels of the evaluation split are not public, archives for their server are written beside the scores,
    which are then those of the validation split. Every rank runs this on its share of the images; the main one alone
    writes the scores.
    """
    layout, device = Layout(root), resolve_device(runtime.device)
    set_kernels(device, runtime.precision)
    spec, prepared = get_dataset(benchmark.dataset.name), Prepared(layout.prepared(benchmark.dataset.name))
    split = scored_split(benchmark.dataset, spec)
    table = prepared.split([split])
    files, training = EvaluationFiles(layout, benchmark.id, seed), TrainingFiles(layout, benchmark.id, seed)
    model = load_segmentor(benchmark, len(spec.classes), training.weights(benchmark.inference.checkpoint))
    model = fold_batch_norm(model.to(device))
    inference, protocols = benchmark.inference, benchmark.inference.protocols
    # Spread evenly over the split: the same for every benchmark, chosen without looking at any result.
    positions = np.linspace(0, len(table) - 1, min(PANEL_IMAGES, len(table))).round().astype(int)
    panel = table["id"].iloc[positions].tolist()

    def keep(image_id: str, maps: dict[str, Prediction]) -> None:
        if image_id in panel and PRIMARY in maps:
            write_png(files.prediction(image_id), maps[PRIMARY])

    def predict(images: pd.DataFrame, name: str, on_prediction: OnPrediction) -> Evaluated | None:
        """In one pass over `images`, or one per size if the protocols resize them differently."""
        options = {"on_prediction": on_prediction, "progress": f"{benchmark.id} seed {seed} {name}", "boundaries": True}
        evaluated: list[Evaluated | None] = []
        for resize, group in groupby(protocols, key=lambda name: inference.resized(protocols[name])):
            chosen = {name: protocols[name] for name in group}
            classify = by_protocol(model, chosen, spec.flip_pairs, inference.cascade)
            found = evaluate_split(model, images, resize, classify, len(spec.classes), device, runtime, **options)
            evaluated.append(found)
        passes = [each for each in evaluated if each is not None]  # of the main rank
        return (passes[0][0], {name: c for _, counts in passes for name, c in counts.items()}) if passes else None

    started = time.perf_counter()
    scored = predict(table, split, keep)
    hidden = prepared.split([benchmark.dataset.evaluation_split])
    submission = None
    if split != benchmark.dataset.evaluation_split and not hidden.empty:  # a declared part may lack the test images
        with submission_archives(files.details, list(protocols), spec.submission_ids, ranks().rank) as add:
            predict(hidden, benchmark.dataset.evaluation_split, add)
        gather_on_main(None)  # every rank's archives are complete
        submission = {"split": benchmark.dataset.evaluation_split, "images": len(hidden)}
    seconds = time.perf_counter() - started
    probed = None
    if model.memory is not None:
        name = f"{benchmark.id} seed {seed} probes"
        probed = probe_split(model, table, benchmark.inference, device, runtime, name)
    if scored is None:
        return files.folder
    if submission is not None:
        archives = {name: joined(files.details, name, ranks().world) for name in protocols}
        submission["files"] = {name: path.relative_to(files.folder).as_posix() for name, path in archives.items()}
    ids, counts = scored
    per_image = {name: c.per_image() for name, c in counts.items()}
    near = {name: c.per_boundary() for name, c in counts.items()}
    blocks = frame_blocks(ids, spec.frames_per_block)
    record = EvaluationRecord(
        **{key: getattr(training.record, key) for key in ("benchmark", "seed", "config_hash", "run_key", "dataset")},
        images=len(ids),
        split=split,
        submission=submission,
        checkpoint=benchmark.inference.checkpoint,
        panel=panel,
        protocol=benchmark.inference.model_dump(mode="json"),
        scores={name: _scores(c.confusion, per_image[name], near[name], blocks) for name, c in counts.items()},
        attention_entropy=probed[1] if probed else {},
    )
    probes = {name: c.per_image() for name, c in probed[0][1].items()} if probed else {}
    number = len(ids) + (submission["images"] if submission else 0)
    cost = EvaluationCost(seconds, seconds / number, str(device))
    confusion = {name: c.confusion for name, c in counts.items()}
    per_image |= {BOUNDARY[name]: c for name, c in near.items()}
    files.write(record, cost, spec.classes, ids, per_image, confusion, probes)
    return files.folder


def _scores(confusion: NDArray[np.int64], counts: Counts, near: Counts, blocks: NDArray[np.int64]) -> ProtocolScores:
    """confusion: (K, K); counts: (N, K), near: of pixels near boundaries; blocks: (N,).

    The interval is that of the report for a single seed.
    """
    summary = summarise(confusion)
    estimate = scores(Counts.of_seeds([counts]), blocks).mean()
    accuracies = summary.pixel_accuracy, summary.mean_accuracy
    boundary = float(miou(*(part.sum(axis=0) for part in near)))
    return ProtocolScores(summary.miou, estimate.low, estimate.high, *accuracies, boundary)
