"""Estimates with intervals over seeds and images, for scores, gains and single classes.

Everything here is a fraction (0..1). B resamples; S seeds; N images; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.results.bootstrap import (
    Counts,
    block_weights,
    image_weights,
    interval,
    over_seeds,
    resampled_iou,
    seed_weights,
)
from pipeline.results.metrics import iou

SAMPLES = 2000  # resamples: the interval's ends then move by about a tenth of its half width between generators

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, its value for each seed, and a 95 % interval."""

    value: float
    low: float
    high: float
    per_seed: Floats  # (S,)
    positive: float  # share of the resamples above zero

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); NaN for a single seed."""
        return float(np.std(self.per_seed, ddof=1)) if len(self.per_seed) > 1 else float("nan")

    @property
    def resolved(self) -> bool:
        """The interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Scores:
    """Class IoU of one benchmark under one protocol: measured (S, K) and resampled (S, B, K)."""

    measured: Floats
    resampled: Floats

    def mean(self, classes: NDArray | None = None) -> Estimate:
        """mIoU, or the mean over some classes (indices or mask)."""
        return _estimate(_mean(self.measured, classes), _mean(self.resampled, classes))


def scores(counts: Counts, samples: int = SAMPLES, blocks: NDArray | None = None) -> Scores:
    """Measure and resample, from counts (S, N, K). Equal N means equal resampled images: pairs stay paired.

    blocks: (N,) which block each image belongs to, where images are to be resampled by blocks. Of a single image or
    block every resample is the same, which would look like certainty: then all are NaN, and there is no interval.
    """
    weights = image_weights(counts.truth.shape[1], samples) if blocks is None else block_weights(blocks, samples)
    if (counts.truth.shape[1] if blocks is None else int(blocks.max()) + 1) == 1:
        weights = np.full_like(weights, np.nan)
    measured = iou(*(part.sum(axis=1) for part in counts))
    resampled = np.stack([resampled_iou(Counts(*one), weights) for one in zip(*counts, strict=True)])
    return Scores(measured, resampled)


def gain(baseline: Scores, memory: Scores, classes: NDArray | None = None) -> Estimate:
    """Difference of mIoU (over `classes` if given), paired over seeds and images."""
    return _estimate(
        _mean(memory.measured, classes) - _mean(baseline.measured, classes),
        _mean(memory.resampled, classes) - _mean(baseline.resampled, classes),
    )


def class_gains(baseline: Scores, memory: Scores) -> list[Estimate]:
    """Difference of IoU for each of the K classes, paired; NaN for a class that neither occurs nor is predicted."""
    return [gain(baseline, memory, np.array([k])) for k in range(memory.measured.shape[1])]


def pooled_gain(pairs: Sequence[tuple[Scores, Scores]], classes: NDArray | None = None) -> Estimate:
    """Mean of the gains of several pairs (baseline, candidate), each paired over the same seeds and images."""
    measured = [_mean(b.measured, classes) - _mean(a.measured, classes) for a, b in pairs]
    resampled = [_mean(b.resampled, classes) - _mean(a.resampled, classes) for a, b in pairs]
    return _estimate(np.mean(measured, axis=0), np.mean(resampled, axis=0))


def _mean(values: Floats, classes: NDArray | None) -> Floats:
    """Mean over the last axis by the rule for classes: NaN is left out, all NaN stays NaN (without a warning)."""
    chosen = values if classes is None else values[..., classes]
    counted = ~np.isnan(chosen)
    number = counted.sum(axis=-1)
    total = np.where(counted, chosen, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)


def _estimate(per_seed: Floats, resampled: Floats) -> Estimate:
    """From values per seed (S,) and resampled (S, B)."""
    samples = over_seeds(resampled, seed_weights(len(per_seed), resampled.shape[1]))
    low, high = interval(samples)
    finite = samples[~np.isnan(samples)]
    positive = float((finite > 0).mean()) if finite.size else float("nan")
    return Estimate(float(per_seed.mean()), low, high, per_seed, positive)
