"""The statistics of a study: scores of its variants and paired differences between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.study import ComparisonConfig, Plan
from pipeline.datasets import get_dataset
from pipeline.results.bootstrap import Counts
from pipeline.results.statistics import Estimate, Scores, gain, pooled_gain, scores
from pipeline.results.stored import Stored

Pair = tuple[str, str]  # variants: without, with


@dataclass(frozen=True)
class StudyAnalysis:
    """What the stored results say. `foreign`: names of results left out because another configuration made them."""

    plan: Plan
    stored: tuple[Stored, ...]
    foreign: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """Which block of neighbouring frames each test image belongs to (N,)."""
        return frame_blocks(self.stored[0].ids, self.frames_per_block)

    @property
    def frames_per_block(self) -> int:
        """Consecutive test images that are resampled together, because they show almost the same."""
        name = next(iter(self.plan.benchmarks.values())).dataset.name
        return getattr(get_dataset(name), "frames_per_block", 10 if name == "camvid" else 1)

    def seeds(self, *variants: str) -> tuple[int, ...]:
        """Seeds with which all of `variants` were run, ascending."""
        runs = {(s.variant, s.seed) for s in self.stored}
        every = sorted({seed for _, seed in runs})
        return tuple(seed for seed in every if all((variant, seed) in runs for variant in variants))

    def score(self, variant: str, protocol: str, seeds: tuple[int, ...] | None = None) -> Estimate:
        """mIoU of a variant over some seeds, or over all of its own."""
        return self._scores(variant, protocol, self.seeds(variant) if seeds is None else seeds).mean()

    def validation(self, variant: str) -> float:
        """mIoU of the last weights on the validation split, single scale, mean over the variant's seeds."""
        return float(np.mean([record["validation"]["miou"] for record in self._records(variant)]))

    def training_loss(self, variant: str) -> float:
        """Cross entropy of the final logits late in the training (see `stored.late_loss`), mean over the seeds."""
        return float(np.mean([record["training_loss"] for record in self._records(variant)]))

    def parameters(self, variant: str) -> int:
        """Number of parameters of a variant's network."""
        return self._records(variant)[0]["parameters"]["total"]

    def gain(self, pair: Pair, protocol: str, seeds: tuple[int, ...] | None = None) -> Estimate | None:
        """Difference of mIoU, paired over images and over `seeds`, else all common ones; None when there are none."""
        seeds = self.seeds(*pair) if seeds is None else seeds
        if not seeds:
            return None
        return gain(*(self._scores(variant, protocol, seeds) for variant in pair))

    def common_seeds(self, comparison: ComparisonConfig) -> tuple[int, ...]:
        """Seeds with which every pair of a comparison was run: those that its mean is taken over."""
        return self.seeds(*{variant for pair in comparison.pairs for variant in pair})

    def pooled(
        self, comparison: ComparisonConfig, protocol: str, classes: Sequence[int] | None = None
    ) -> Estimate | None:
        """Mean gain over the comparison's pairs, with the seeds that all of them share; None when there are none."""
        seeds = self.common_seeds(comparison)
        if not seeds:
            return None
        sides = [tuple(self._scores(variant, protocol, seeds) for variant in pair) for pair in comparison.pairs]
        return pooled_gain(sides, None if classes is None else np.asarray(classes))

    def missing(self) -> list[tuple[str, int]]:
        """Runs of the plan without a result."""
        there = {(s.variant, s.seed) for s in self.stored}
        return [run for run in self.plan.runs if run not in there]

    def _records(self, variant: str) -> list[dict[str, Any]]:
        return [stored.record for stored in self.stored if stored.variant == variant]

    @cached_property
    def _resampled(self) -> dict[tuple[str, str, int], Scores]:
        """Scores of every result by (variant, protocol, seed), as those of a single seed."""
        return {
            (stored.variant, protocol, stored.seed): scores(
                Counts(*(part[None] for part in counts)), blocks=self.blocks
            )  # from (1, N, K)
            for stored in self.stored
            for protocol, counts in stored.counts.items()
        }

    def _scores(self, variant: str, protocol: str, seeds: tuple[int, ...]) -> Scores:
        """Some seeds of one variant under one protocol."""
        parts = [self._resampled[variant, protocol, seed] for seed in seeds]
        return Scores(
            np.concatenate([part.measured for part in parts]), np.concatenate([part.resampled for part in parts])
        )


def frame_blocks(ids: Sequence[str], length: int) -> NDArray[np.int64]:
    """Block of each image (N,): at most `length` neighbours of one sequence, which the id names up to its last `_`."""
    numbers, current, size, sequence = [], -1, length, None
    for image_id in ids:
        name = image_id.rpartition("_")[0]
        if name != sequence or size == length:
            current, size, sequence = current + 1, 0, name
        size += 1
        numbers.append(current)
    return np.asarray(numbers)
