"""What a study consists of: benchmarks, their runs, and the pairs with and without memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark, Project
from pipeline.datasets import DatasetSpec
from pipeline.datasets.prepared import Prepared
from pipeline.results.bootstrap import Counts
from pipeline.results.published import published_rows


@dataclass(frozen=True)
class Memory:
    """memory.npz: vectors (K, S, C) after the first epoch and at the end, and which were ever touched (K, S)."""

    first_epoch: NDArray[np.float32] | None  # None: imported, only the end is known
    final: NDArray[np.float32]
    touched: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One benchmark with one seed: everything its training and evaluation wrote, but the weights."""

    seed: int
    summary: dict[str, Any]
    cost: dict[str, Any]
    history: pd.DataFrame
    validation: pd.DataFrame
    memory: Memory | None
    metrics: dict[str, Any]
    evaluation: dict[str, Any]
    evaluation_cost: dict[str, Any]
    ids: tuple[str, ...]  # N evaluated images
    counts: dict[str, Counts]  # per protocol, each array (N, K)
    confusion: dict[str, NDArray[np.int64]]  # per protocol (K, K), row = truth
    predictions: Path  # folder of the stored ms+flip label maps

    def prediction_file(self, image_id: str) -> Path:
        """The stored label map of an image of the panel."""
        return self.predictions / f"{image_id.replace('/', '__')}.png"


@dataclass(frozen=True)
class Result:
    """One benchmark over all seeds, in the order of params.yaml."""

    benchmark: Benchmark
    runs: tuple[Run, ...]
    spec: DatasetSpec
    prepared: Prepared

    @property
    def id(self) -> str:
        """The benchmark's id."""
        return self.benchmark.id

    @property
    def imported(self) -> bool:
        """The weights are a published checkpoint's: nothing was trained, and a seed means nothing."""
        return self.benchmark.mode == "import"

    @property
    def split(self) -> str:
        """The split that was scored: another one than `dataset.evaluation_split` when that has no labels here."""
        return self.runs[0].metrics["split"]

    @property
    def server_scored(self) -> bool:
        """The published split has no labels here, and the numbers are those of the validation split."""
        return self.split != self.benchmark.dataset.evaluation_split

    @property
    def submission(self) -> dict[str, Any] | None:
        """The archives for the server that scores `dataset.evaluation_split`; None when there are none."""
        return self.runs[0].metrics["submission"]

    @property
    def is_part(self) -> bool:
        """The prepared data is a declared part of the dataset: no number from it compares with a published one."""
        return self.prepared.info["splits"] != dict(self.spec.splits)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the N evaluated images, the same for every seed."""
        return self.runs[0].ids

    def counts(self, protocol: str) -> Counts:
        """Counts of every seed under one protocol, each array (S, N, K)."""
        return Counts(*(np.stack(parts) for parts in zip(*(run.counts[protocol] for run in self.runs), strict=True)))

    def confusion(self, protocol: str) -> NDArray[np.int64]:
        """Pixel counts (K, K) summed over the seeds, row = truth."""
        return np.sum([run.confusion[protocol] for run in self.runs], axis=0)

    @cached_property
    def class_share(self) -> NDArray[np.float64]:
        """Share of each class in the valid pixels of the evaluated split (K,)."""
        truth = self.runs[0].counts["single_scale"].truth.sum(axis=0)
        return truth / truth.sum()


@dataclass(frozen=True)
class Pair:
    """A benchmark with memory and the same framework without."""

    baseline: Result
    memory: Result


@dataclass(frozen=True)
class Study:
    """All that the report is about."""

    root: Path
    project: Project
    results: tuple[Result, ...]
    published: tuple[Benchmark, ...]  # every benchmark with published numbers as its file stands, chosen or not

    @property
    def rows(self) -> tuple[Benchmark, ...]:
        """The published rows with memory; the others of `published` are baselines."""
        return published_rows(self.published)

    @property
    def trained(self) -> tuple[Result, ...]:
        """Results of own trainings."""
        return tuple(result for result in self.results if not result.imported)

    def result(self, benchmark_id: str) -> Result | None:
        """The result of a benchmark; None when it was not chosen."""
        return next((result for result in self.results if result.id == benchmark_id), None)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every chosen benchmark whose `baseline` is chosen too."""
        by_id = {result.id: result for result in self.results}
        return tuple(
            Pair(by_id[result.benchmark.baseline], result)
            for result in self.results
            if result.benchmark.baseline in by_id
        )

    @property
    def unpaired(self) -> tuple[Result, ...]:
        """Results that belong to no pair."""
        paired = {result.id for pair in self.pairs for result in (pair.baseline, pair.memory)}
        return tuple(result for result in self.results if result.id not in paired)
