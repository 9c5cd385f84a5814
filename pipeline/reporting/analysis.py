"""The study with its statistics: computed once, asked by every section."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Benchmark
from pipeline.reporting.results import Pair, Result, Study
from pipeline.reporting.wording import PROTOCOLS, framework
from pipeline.results import statistics
from pipeline.results.statistics import Estimate, Scores

PRIMARY = "ms_flip"  # the protocol of the headline, the class table, the confusion matrices and the pictures


@dataclass(frozen=True)
class Analysis:
    """`scores` by (benchmark id, protocol)."""

    study: Study
    scores: dict[tuple[str, str], Scores]

    def score(self, result: Result, protocol: str) -> Estimate:
        """mIoU of a benchmark."""
        return self.scores[result.id, protocol].mean()

    def gain(self, pair: Pair, protocol: str, classes: NDArray | None = None) -> Estimate:
        """Paired difference of mIoU, over `classes` (indices) if given."""
        return statistics.gain(*self._sides(pair, protocol), classes)

    def class_gains(self, pair: Pair, protocol: str) -> list[Estimate]:
        """Paired difference of the IoU of each class."""
        return statistics.class_gains(*self._sides(pair, protocol))

    def class_iou(self, result: Result, protocol: str) -> NDArray[np.float64]:
        """IoU per class (K,), mean over seeds."""
        return self.scores[result.id, protocol].measured.mean(axis=0)

    def label(self, pair: Pair) -> str:
        """The pair's framework, with as much more as tells it from the other pairs."""
        return _distinct([p.memory.benchmark for p in self.study.pairs])[pair.memory.id]

    def _sides(self, pair: Pair, protocol: str) -> tuple[Scores, Scores]:
        return self.scores[pair.baseline.id, protocol], self.scores[pair.memory.id, protocol]


def analyse(study: Study) -> Analysis:
    """Every benchmark under every protocol."""
    return Analysis(
        study,
        {
            (result.id, protocol): statistics.scores(result.counts(protocol))
            for result in study.results
            for protocol in PROTOCOLS
        },
    )


def _distinct(benchmarks: list[Benchmark]) -> dict[str, str]:
    """The shortest kind of label that differs between all benchmarks, by id; the dataset is named if there are more."""
    several = len({b.dataset.name for b in benchmarks}) > 1
    for with_encoder in (False, True):
        labels = {}
        for b in benchmarks:
            parts = [framework(b), *([b.encoder.name] if with_encoder else []), *([b.dataset.name] if several else [])]
            labels[b.id] = ", ".join(parts)
        if len(set(labels.values())) == len(benchmarks):
            return labels
    return {b.id: b.id for b in benchmarks}
