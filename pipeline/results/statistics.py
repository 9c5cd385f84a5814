"""Estimates with 95 % intervals over seeds and images: for scores, gains and single classes.

mIoU is not a mean over images, so every bootstrap resample recomputes it from summed pixel counts. Counts are integers
below 2**53, so the float64 sums are exact and the result does not depend on the order of summation. Every number in the
project that has an interval comes from here: metrics.json, MLflow, the card of an exported model and the report.

Values are fractions (0..1). B resamples; S seeds; N images; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.results.metrics import Counts, iou

RESAMPLES = 2000  # two generators then differ by about a tenth of the interval's half width
_CHUNK = 250  # resamples per matrix product: bounds the scratch memory
_IMAGES, _SEEDS = 0, 1  # two random streams, so that the drawn images do not depend on the number of seeds

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, its value for each seed, and a 95 % interval (NaN where there is none)."""

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
    """Class IoU of one model under one protocol: measured (S, K) and resampled (S, B, K)."""

    measured: Floats
    resampled: Floats

    def mean(self, classes: NDArray | None = None) -> Estimate:
        """mIoU, or the mean over some classes (indices or mask)."""
        return _estimate(_mean(self.measured, classes), _mean(self.resampled, classes))

    @classmethod
    def of_seeds(cls, seeds: Sequence[Scores]) -> Scores:
        """Scores of single seeds as those of all of them together."""
        return cls(np.concatenate([s.measured for s in seeds]), np.concatenate([s.resampled for s in seeds]))


def scores(counts: Counts, blocks: NDArray[np.int64], samples: int = RESAMPLES) -> Scores:
    """Measure and resample counts (S, N, K). Models with equal `blocks` are resampled alike, so they can be paired.

    blocks: (N,) the block of each image, see `frame_blocks`; images of a block are drawn together. A single block has
    no interval: all its resamples would be the same, which looks like certainty.
    """
    weights = block_weights(blocks, samples)
    if blocks.max() == 0:
        weights = np.full_like(weights, np.nan)
    measured = iou(*(part.sum(axis=1) for part in counts))
    return Scores(measured, np.stack([_resampled_iou(Counts(*one), weights) for one in zip(*counts, strict=True)]))


def gain(baseline: Scores, candidate: Scores, classes: NDArray | None = None) -> Estimate:
    """Difference in mIoU (over `classes` if given), paired over seeds and images. ValueError for unequal shapes."""
    return pooled_gain([(baseline, candidate)], classes)


def class_gains(baseline: Scores, candidate: Scores) -> list[Estimate]:
    """Paired difference in IoU of each of the K classes; NaN for a class that neither occurs nor is predicted."""
    return [gain(baseline, candidate, np.array([k])) for k in range(candidate.measured.shape[1])]


def pooled_gain(pairs: Sequence[tuple[Scores, Scores]], classes: NDArray | None = None) -> Estimate:
    """Mean of the gains of several pairs (baseline, candidate), each paired over the same seeds and images."""
    for baseline, candidate in pairs:
        if baseline.resampled.shape != candidate.resampled.shape:
            raise ValueError(f"cannot pair scores of {baseline.resampled.shape} and {candidate.resampled.shape}")
    measured = [_mean(b.measured, classes) - _mean(a.measured, classes) for a, b in pairs]
    resampled = [_mean(b.resampled, classes) - _mean(a.resampled, classes) for a, b in pairs]
    return _estimate(np.mean(measured, axis=0), np.mean(resampled, axis=0))


def frame_blocks(ids: Sequence[str], length: int) -> NDArray[np.int64]:
    """Block of each image (N,): up to `length` consecutive images of one sequence.

    The sequence is the image's id up to its last `_`. Neighbouring frames of a video resemble each other; resampled one
    by one they would give intervals that are too narrow. length: `DatasetSpec.frames_per_block`, 1 for single images.
    """
    numbers, current, size, sequence = [], -1, length, None
    for image_id in ids:
        name = image_id.rpartition("_")[0]
        if name != sequence or size == length:
            current, size, sequence = current + 1, 0, name
        size += 1
        numbers.append(current)
    return np.asarray(numbers)


def block_weights(blocks: NDArray[np.int64], samples: int = RESAMPLES) -> Floats:
    """How often each of N images occurs in each of B resamples of the blocks: (B, N)."""
    number = int(blocks.max()) + 1
    drawn = np.random.default_rng([0, _IMAGES]).multinomial(number, np.full(number, 1 / number), size=samples)
    return drawn.astype(np.float64)[:, blocks]


def seed_weights(seeds: int, samples: int = RESAMPLES) -> Floats:
    """Weight of each of S seeds in each of B resamples: (B, S), every row sums to 1.

    The mean of S resampled values varies less than it should, by the factor (S - 1) / S in variance. Deviations from
    equal weights are widened by sqrt(S / (S - 1)) to correct for that.
    """
    if seeds == 1:
        return np.ones((samples, 1))
    drawn = np.random.default_rng([0, _SEEDS]).multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    return 1 / seeds + np.sqrt(seeds / (seeds - 1)) * (drawn - 1 / seeds)


def _resampled_iou(counts: Counts, weights: Floats) -> Floats:
    """IoU per class (B, K) of each resample, from counts (N, K) and image weights (B, N)."""
    parts = [np.asarray(part, dtype=np.float64) for part in counts]
    chunks = [weights[start : start + _CHUNK] for start in range(0, len(weights), _CHUNK)]
    return np.concatenate([iou(*(chunk @ part for part in parts)) for chunk in chunks])


def _mean(values: Floats, classes: NDArray | None) -> Floats:
    """Mean over the last axis without NaN, which marks classes that neither occur nor are predicted; all NaN: NaN."""
    chosen = values if classes is None else values[..., classes]
    counted = ~np.isnan(chosen)
    number = counted.sum(axis=-1)
    total = np.where(counted, chosen, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)


def _estimate(per_seed: Floats, resampled: Floats) -> Estimate:
    """From values per seed (S,) and resampled (S, B): the percentile interval of the resampled means over seeds."""
    samples = np.einsum("sb,bs->b", resampled, seed_weights(len(per_seed), resampled.shape[1]))
    finite = samples[~np.isnan(samples)]
    if not finite.size:
        return Estimate(float(per_seed.mean()), float("nan"), float("nan"), per_seed, float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(per_seed.mean()), float(low), float(high), per_seed, float((finite > 0).mean()))
