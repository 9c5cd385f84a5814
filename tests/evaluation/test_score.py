"""The evaluation of a benchmark, from prepared data and weights to its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from helpers.project import edit_yaml
from helpers.tracking_files import write_training

from pipeline.config.load import load_resolved
from pipeline.config.schema import PRIMARY, RuntimeConfig
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.layout import Layout
from pipeline.results.record import EvaluationFiles

BENCHMARK = "tiny-fcn"
RUNTIME = RuntimeConfig(device="cpu", workers=0)
SIZE = {"keep_ratio": False, "size": [64, 80]}


def evaluated(project: Path, root: Path, **inference: Any) -> EvaluationFiles:
    """A copy of the project with few images, in which the test protocol is changed and the benchmark evaluated."""
    shutil.copytree(project, root)
    layout = Layout(root)
    table = layout.prepared("digits") / "table.parquet"
    pd.read_parquet(table).groupby("split").head(20).to_parquet(table)
    for path in (layout.resolved_for("evaluate", BENCHMARK), layout.resolved(BENCHMARK)):
        edit_yaml(path, inference=inference)
    benchmark = load_resolved(layout.resolved_for("evaluate", BENCHMARK))
    torch.manual_seed(0)
    write_training(root, benchmark, 0)
    evaluate_benchmark(root, benchmark, 0, RUNTIME)
    return EvaluationFiles(layout, BENCHMARK, 0)


def test_a_protocol_may_have_a_size_of_its_own(prepared_project: Path, tmp_path: Path) -> None:
    views = {"scales": [0.5, 1.0], "flip": True}
    plain = evaluated(prepared_project, tmp_path / "plain", ms_flip=views)
    resized = evaluated(prepared_project, tmp_path / "resized", resize=SIZE, ms_flip=views)
    mixed = evaluated(prepared_project, tmp_path / "mixed", ms_flip=views | {"resize": SIZE})
    assert mixed.record.scores["single_scale"] == plain.record.scores["single_scale"]
    assert mixed.record.scores["ms_flip"] == resized.record.scores["ms_flip"] != plain.record.scores["ms_flip"]
    assert mixed.counts[0] == plain.counts[0]
    for name in ("ms_flip", "ms_flip_boundary"):
        assert all(map(np.array_equal, mixed.counts[1][name], resized.counts[1][name]))
    same = [path.read_bytes() == mixed.prediction(path.stem).read_bytes() for path in resized.predictions()]
    assert len(same) == len(mixed.record.panel)
    assert all(same)
    assert PRIMARY == "ms_flip"
