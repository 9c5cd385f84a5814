"""A run as a training leaves it, with random weights in place of trained ones."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config import Benchmark, config_hash, for_training, resolved_yaml
from pipeline.config.schema import PROTOCOLS
from pipeline.datasets import get_dataset
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor
from pipeline.results.metrics import Counts
from pipeline.results.record import EvaluationCost, EvaluationFiles, EvaluationRecord, ProtocolScores, TrainingFiles
from pipeline.training.loop import Progress, save_weights
from pipeline.training.outcome import cost_now, training_record
from pipeline.training.state import Identity

SCORES = {"miou": 0.61, "miou_low": 0.58, "miou_high": 0.64, "pixel_accuracy": 0.9, "mean_accuracy": 0.7}
SCORES |= {"boundary_miou": 0.41}


def lively(model: Segmentor) -> Segmentor:
    """`model` in evaluation mode, with statistics, a memory and a classifier that tell places apart."""
    generator = torch.Generator().manual_seed(1)
    for name, values in model.state_dict().items():
        if name.endswith("running_mean"):
            values.copy_(0.1 * torch.randn(values.shape, generator=generator))
        elif name.endswith("memory.memory"):
            values.copy_(torch.randn(values.shape, generator=generator))
    with torch.no_grad():
        model.final_decoder[-1].weight.normal_(std=2, generator=generator)
    return model.eval()


def write_run(root: Path, benchmark: Benchmark, seed: int = 0, planned: bool = True) -> Path:
    """The files of `runs/train` and, if `planned`, of `runs/plan` that an export reads; returns the former's folder.

    Both checkpoints are there: `best` has another bias.
    """
    layout = Layout(root)
    files = TrainingFiles(layout, benchmark.id, seed)
    torch.manual_seed(seed)
    model = lively(build_segmentor(benchmark, len(get_dataset(benchmark.dataset.name).classes)))
    save_weights(model, files.weights("last"))
    torch.nn.init.ones_(model.final_decoder[-1].bias)
    save_weights(model, files.weights("best"))
    trained = for_training(benchmark)
    identity, progress = Identity(f"key-{seed}", "fingerprint", "float32", None, None), Progress(10, seconds=1.0)
    record = training_record(trained, model, seed, identity, (), progress)
    cost = cost_now(root, torch.device("cpu"), datetime.datetime.now(datetime.UTC), progress)
    files.write(trained, record, cost, None, [], [])
    if planned:
        layout.plan.mkdir(parents=True, exist_ok=True)
        layout.resolved(benchmark.id).write_text(resolved_yaml(benchmark), encoding="utf-8")
    return files.folder


def write_scores(root: Path, benchmark: Benchmark, **changes: Any) -> None:
    """The files of `runs/evaluate` that an export reads; `changes` to the record."""
    classes = len(get_dataset(benchmark.dataset.name).classes)
    counts = Counts(*(np.ones((200, classes), np.int64) for _ in range(3)))
    ids = [f"image_{i}" for i in range(200)]
    write_counted(root, benchmark, 0, ids, dict.fromkeys(PROTOCOLS, counts), **changes)


def write_counted(
    root: Path,
    benchmark: Benchmark,
    seed: int,
    ids: Sequence[str],
    counts: Mapping[str, Counts],
    confusion: Mapping[str, NDArray[np.int64]] | None = None,
    probes: Mapping[str, Counts] | None = None,
    **changes: Any,
) -> EvaluationFiles:
    """The files of `runs/evaluate` with these counts (N, K) and matrices per protocol; `changes` to the record.

    Without matrices, whatever was not found was predicted as nothing else.
    """
    files, dataset = EvaluationFiles(Layout(root), benchmark.id, seed), get_dataset(benchmark.dataset.name)
    record = EvaluationRecord(
        benchmark=benchmark.id,
        seed=seed,
        config_hash=config_hash(benchmark),
        run_key=f"key-{seed}",
        dataset=dataset.name,
        images=len(ids),
        split="test",
        submission=None,
        checkpoint=benchmark.inference.checkpoint,
        panel=[],
        protocol=benchmark.inference.model_dump(mode="json"),
        scores=dict.fromkeys(PROTOCOLS, ProtocolScores(**SCORES)),
        attention_entropy={"memory": 0.5} if probes else {},
    )
    confusion = confusion or {protocol: np.diag(counts[protocol].truth.sum(axis=0)) for protocol in PROTOCOLS}
    cost = EvaluationCost(0.1 * len(ids), 0.1, "cpu")
    files.write(replace(record, **changes), cost, dataset.classes, ids, counts, confusion, probes or {})
    return files
