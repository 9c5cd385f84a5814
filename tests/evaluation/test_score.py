"""The evaluation of a benchmark, from prepared data and weights to its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.project import copy_prepared, edit_yaml
from helpers.tracking_files import write_training
from safetensors.torch import load_file, save_file

from pipeline.config.load import load_resolved
from pipeline.config.schema import RuntimeConfig
from pipeline.errors import PipelineError
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.layout import Layout
from pipeline.results.metrics import Counts
from pipeline.results.record import EvaluationFiles, EvaluationRecord, TrainingFiles

BENCHMARK = "tiny-fcn"
RUNTIME = RuntimeConfig(device="cpu", workers=0)
VIEWS = {"scales": [0.5, 1.0], "flip": True}
SIZE = {"keep_ratio": False, "size": [64, 80]}


class Evaluated(NamedTuple):
    """What an evaluation wrote."""

    record: EvaluationRecord
    counts: dict[str, Counts]
    predictions: dict[str, bytes]


def evaluated(root: Path, **inference: Any) -> Evaluated:
    """The benchmark evaluated in the project `root` with another test protocol."""
    layout = Layout(root)
    for path in (layout.resolved_for("evaluate", BENCHMARK), layout.resolved(BENCHMARK)):
        edit_yaml(path, inference={"resize": None} | inference)
    benchmark = load_resolved(layout.resolved_for("evaluate", BENCHMARK))
    evaluate_benchmark(root, benchmark, 0, RUNTIME)
    files = EvaluationFiles(layout, BENCHMARK, 0)
    return Evaluated(files.record, files.counts[1], {path.name: path.read_bytes() for path in files.predictions()})


@pytest.fixture
def few_images(prepared_project: Path, tmp_path: Path) -> Path:
    """A project with twenty images in each split and a network that was not trained."""
    root = copy_prepared(prepared_project, tmp_path / "project")
    table = Layout(root).prepared("digits") / "table.parquet"
    pd.read_parquet(table).groupby("split").head(20).to_parquet(table)
    torch.manual_seed(0)  # some networks find one class everywhere, at any size
    write_training(root, load_resolved(Layout(root).resolved_for("train", BENCHMARK)))
    return root


def test_a_split_of_ignored_pixels_only_is_an_error(prepared_project: Path, tmp_path: Path) -> None:
    root = copy_prepared(prepared_project, tmp_path / "project")
    path = Layout(root).prepared("digits") / "table.parquet"
    table = pd.read_parquet(path)
    table.assign(histogram=[np.zeros_like(row) for row in table["histogram"]]).to_parquet(path)
    write_training(root, load_resolved(Layout(root).resolved_for("train", BENCHMARK)))
    with pytest.raises(PipelineError, match=r"digits: every pixel of the \d+ test images is ignored; check the labels"):
        evaluated(root)


def test_the_checkpoint_that_is_named_is_evaluated(few_images: Path) -> None:
    files = TrainingFiles(Layout(few_images), BENCHMARK, 0)
    other = {name: value.roll(1) for name, value in load_file(files.weights("best")).items()}
    save_file(other, files.weights("best"))
    last, best = (evaluated(few_images, ms_flip=VIEWS, checkpoint=name) for name in ("last", "best"))
    assert (last.record.checkpoint, best.record.checkpoint) == ("last", "best")
    shutil.copyfile(files.weights("best"), files.weights("last"))
    assert evaluated(few_images, ms_flip=VIEWS).record.scores == best.record.scores != last.record.scores


def test_a_protocol_may_have_a_size_of_its_own(few_images: Path) -> None:
    plain = evaluated(few_images, ms_flip=VIEWS)
    resized = evaluated(few_images, resize=SIZE, ms_flip=VIEWS)
    mixed = evaluated(few_images, ms_flip=VIEWS | {"resize": SIZE})
    assert mixed.record.scores["single_scale"] == plain.record.scores["single_scale"]
    assert mixed.record.scores["ms_flip"] == resized.record.scores["ms_flip"] != plain.record.scores["ms_flip"]
    for name in ("ms_flip", "ms_flip_boundary"):
        assert all(map(np.array_equal, mixed.counts[name], resized.counts[name]))
    assert mixed.predictions == resized.predictions != plain.predictions
    assert len(mixed.predictions) == len(mixed.record.panel)
