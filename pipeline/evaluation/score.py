"""Evaluate one trained benchmark under both protocols in one pass and write the files of `runs/evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.config import Benchmark
from pipeline.config.schema import PRIMARY, PROTOCOLS, InferenceConfig, RuntimeConfig
from pipeline.datasets import DatasetSpec, get_dataset, scored_split
from pipeline.datasets.prepared import Prepared, class_pixels, evenly_spaced
from pipeline.evaluation.evaluate import Evaluated, LabelMap, OnPrediction, by_protocol, evaluate_split
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.evaluation.probes import probe_split
from pipeline.evaluation.submission import joined, submission_archives
from pipeline.files.storage import write_png
from pipeline.layout import Layout
from pipeline.models import Segmentor, load_segmentor
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


def evaluate_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> None:
    """Single-scale and ms+flip scores of the checkpoint that `inference.checkpoint` names.

    A network with memory is also probed. When the labels of the evaluation split are not public, archives for their
    server are written beside the scores, which are then those of the validation split. Every rank runs this on its
    share of the images; the main one alone writes the scores.
    """
    layout, device = Layout(root), resolve_device(runtime.device)
    set_kernels(device, runtime.precision)
    spec, prepared = get_dataset(benchmark.dataset.name), Prepared(layout.prepared(benchmark.dataset.name))
    split, wanted = scored_split(benchmark.dataset, spec), benchmark.dataset.evaluation_split
    table = prepared.split([split])
    class_pixels(spec, table, split)
    files, training = EvaluationFiles(layout, benchmark.id, seed), TrainingFiles(layout, benchmark.id, seed)
    model = load_segmentor(benchmark, len(spec.classes), training.existing_weights(benchmark.inference.checkpoint))
    model = fold_batch_norm(model.to(device), benchmark.augmentation.crop)
    # The same images for every benchmark, chosen without looking at any result.
    panel = table["id"].iloc[evenly_spaced(len(table), PANEL_IMAGES)].tolist()

    def keep(image_id: str, maps: dict[str, LabelMap]) -> None:
        if image_id in panel and PRIMARY in maps:
            write_png(files.prediction(image_id), maps[PRIMARY])

    def run(images: pd.DataFrame, name: str, on_prediction: OnPrediction) -> Evaluated | None:
        options = {"on_prediction": on_prediction, "progress": f"{benchmark.id} seed {seed} {name}"}
        return _by_size(model, images, benchmark.inference, spec, device, runtime, **options)

    started = time.perf_counter()
    scored = run(table, split, keep)
    submission, tested = None, len(table)
    if split != wanted and not (hidden := prepared.split([wanted])).empty:  # a declared part may lack the test images
        with submission_archives(files.details, PROTOCOLS, spec.submission_ids, ranks().rank) as add:
            run(hidden, wanted, add)
        gather_on_main(None)  # every rank's archives are complete
        submission, tested = {"split": wanted, "images": len(hidden)}, tested + len(hidden)
    seconds = time.perf_counter() - started
    probed = None
    if model.memory is not None:
        name = f"{benchmark.id} seed {seed} probes"
        probed = probe_split(model, table, benchmark.inference, device, runtime, name)
    if scored is None:
        return
    if submission is not None:
        archives = {name: joined(files.details, name, ranks().world) for name in PROTOCOLS}
        submission["files"] = {name: path.relative_to(files.folder).as_posix() for name, path in archives.items()}
    ids, found = scored
    counts = {name: c.per_image() for name, c in found.items()}
    counts |= {BOUNDARY[name]: c.per_boundary() for name, c in found.items()}
    confusion = {name: c.confusion for name, c in found.items()}
    record = EvaluationRecord(
        **{key: getattr(training.record, key) for key in ("benchmark", "seed", "config_hash", "run_key", "dataset")},
        images=len(table),
        split=split,
        submission=submission,
        checkpoint=benchmark.inference.checkpoint,
        panel=panel,
        protocol=benchmark.inference.model_dump(mode="json"),
        scores=_scores(confusion, counts, frame_blocks(ids, spec.frames_per_block)),
        attention_entropy=probed[1] if probed else {},
    )
    probes = {name: c.per_image() for name, c in probed[0][1].items()} if probed else {}
    cost = EvaluationCost(seconds, seconds / tested, str(device))
    files.write(record, cost, spec.classes, ids, counts, confusion, probes)


def _by_size(
    model: Segmentor,
    images: pd.DataFrame,
    inference: InferenceConfig,
    spec: DatasetSpec,
    device: torch.device,
    runtime: RuntimeConfig,
    **options: Any,
) -> Evaluated | None:
    """Both protocols in one pass over `images`, or in two if they resize them differently."""
    protocols = inference.protocols
    passes: list[Evaluated] = []
    for resize, names in groupby(protocols, key=lambda name: inference.resized(protocols[name])):
        chosen = {name: protocols[name] for name in names}
        classify = by_protocol(model, chosen, spec.flip_pairs, inference.cascade)
        shared = (resize, classify, len(spec.classes), device, runtime)
        found = evaluate_split(model, images, *shared, boundaries=True, **options)
        passes += [] if found is None else [found]
    return (passes[0][0], {name: c for _, counts in passes for name, c in counts.items()}) if passes else None


def _scores(
    confusion: Mapping[str, NDArray[np.int64]], counts: Mapping[str, Counts], blocks: NDArray[np.int64]
) -> dict[str, ProtocolScores]:
    """By protocol, of matrices (K, K), counts (N, K) and blocks (N,); intervals are the report's for a single seed."""
    found = {}
    for name, matrix in confusion.items():
        summary, estimate = summarise(matrix), scores(Counts.of_seeds([counts[name]]), blocks).mean()
        accuracies = summary.pixel_accuracy, summary.mean_accuracy
        boundary = float(miou(*counts[BOUNDARY[name]].total()))
        found[name] = ProtocolScores(summary.miou, estimate.low, estimate.high, *accuracies, boundary)
    return found
