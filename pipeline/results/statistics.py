"""Estimates with 95 % intervals over trainings and images: for scores, gains and single classes.

Trainings are a sample. The interval of a mean over S >= 2 seeds joins two variances: that between the seeds' (paired)
values, by Student's t with S - 1 degrees of freedom, and that from the choice of images, by a bootstrap. A single
training has an interval over images only, and a difference between two single trainings says nothing of the methods.

mIoU is not a mean over images, so every bootstrap resample recomputes it from summed pixel counts. Counts are integers
below 2**53, so the float64 sums are exact and the result does not depend on the order of summation. Every number in the
project that has an interval comes from here: metrics.json, MLflow, the card of an exported model and the report.
`python -m benchmarks.coverage` measures how often the intervals hold the truth (docs/verification.md).

Values are fractions (0..1). B resamples; S seeds; N images; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pipeline.results.metrics import Counts, iou

RESAMPLES = 2000  # two generators then differ by about a tenth of the interval's half width
_CHUNK = 250  # resamples per matrix product: bounds the scratch memory
ALPHA = 0.05
_POWER = 1.35  # of the variances that weigh two quantiles of t; chosen by simulation alone (docs/verification.md)
_SMALLEST = 1e-9  # smaller p-values are not distinguished

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, its value for each seed, and a 95 % interval (NaN where there is none).

    The interval covers the images and, with several seeds, the trainings. p: two-sided, of the hypothesis that the
    value is zero; NaN for a single seed, from which nothing follows about the method. adjusted: p when several values
    are judged together, see `holm`.
    """

    value: float
    low: float
    high: float
    per_seed: Floats  # (S,)
    p: float
    adjusted: float

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); NaN for a single seed."""
        return float(np.std(self.per_seed, ddof=1)) if self.covers_seeds else float("nan")

    @property
    def resolved(self) -> bool:
        """Whether the value differs from zero by more than trainings and images explain."""
        return self.adjusted < ALPHA

    @property
    def has_interval(self) -> bool:
        """Whether there was more than one block of images to resample."""
        return not np.isnan(self.low)

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval is one over trainings too, and not over images alone."""
        return len(self.per_seed) > 1


@dataclass(frozen=True)
class Scores:
    """Class IoU of one model under one protocol: measured (S, K) and resampled (S, B, K) by drawing `blocks` blocks."""

    measured: Floats
    resampled: Floats
    blocks: int

    def mean(self, classes: NDArray | None = None) -> Estimate:
        """mIoU, or the mean over some classes (indices or mask)."""
        return _estimate(_mean(self.measured, classes)[None], _mean(self.resampled, classes)[None], self.blocks)

    @classmethod
    def of_seeds(cls, seeds: Sequence[Scores]) -> Scores:
        """Scores of single seeds as those of all of them together."""
        measured, resampled = ([getattr(one, part) for one in seeds] for part in ("measured", "resampled"))
        return cls(np.concatenate(measured), np.concatenate(resampled), seeds[0].blocks)


def scores(counts: Counts, blocks: NDArray[np.int64], samples: int = RESAMPLES) -> Scores:
    """Measure and resample counts (S, N, K). Models with equal `blocks` are resampled alike, so they can be paired.

    blocks: (N,) the block of each image, see `frame_blocks`; images of a block are drawn together. A single block has
    no interval: all its resamples would be the same, which looks like certainty.
    """
    weights, number = block_weights(blocks, samples), int(blocks.max()) + 1
    if number == 1:
        weights = np.full_like(weights, np.nan)
    measured = iou(*counts.total())
    resampled = np.stack([_resampled_iou(Counts(*one), weights) for one in zip(*counts, strict=True)])
    return Scores(measured, resampled, number)


def gain(baseline: Scores, candidate: Scores, classes: NDArray | None = None) -> Estimate:
    """Difference in mIoU (over `classes` if given), paired over seeds and images. ValueError for unequal shapes."""
    return pooled_gain([(baseline, candidate)], classes)


def pooled_gain(pairs: Sequence[tuple[Scores, Scores]], classes: NDArray | None = None) -> Estimate:
    """Mean of the gains of several pairs (baseline, candidate), each paired over the same seeds and images.

    No model may be in two pairs: trainings of different pairs are taken to vary independently, also with equal seeds,
    and equally much.
    """
    for baseline, candidate in pairs:
        if baseline.resampled.shape != candidate.resampled.shape:
            raise ValueError(f"cannot pair scores of {baseline.resampled.shape} and {candidate.resampled.shape}")
    measured = [_mean(b.measured, classes) - _mean(a.measured, classes) for a, b in pairs]
    resampled = [_mean(b.resampled, classes) - _mean(a.resampled, classes) for a, b in pairs]
    return _estimate(np.stack(measured), np.stack(resampled), pairs[0][0].blocks)


def holm(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The same estimates with p-values adjusted for being judged together (Holm, 1979); NaN is not counted."""
    known = sorted((i for i, each in enumerate(estimates) if not np.isnan(each.p)), key=lambda i: estimates[i].p)
    judged, largest = list(estimates), 0.0
    for rank, i in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * estimates[i].p))
        judged[i] = replace(estimates[i], adjusted=largest)
    return judged


def frame_blocks(ids: Sequence[str], length: int) -> NDArray[np.int64]:
    """Block of each image (N,): up to `length` consecutive images of one sequence.

    The sequence is the image's id up to its last `_`. Neighbouring frames of a video resemble each other; resampled one
    by one they would give intervals that are too narrow. length: `DatasetSpec.frames_per_block`, 1 for single images.
    """
    numbers, current = [], -1
    for _, sequence in groupby(ids, key=lambda image_id: image_id.rpartition("_")[0]):
        for position, _ in enumerate(sequence):
            current += position % length == 0
            numbers.append(current)
    return np.asarray(numbers)


def block_weights(blocks: NDArray[np.int64], samples: int = RESAMPLES) -> Floats:
    """How often each of N images occurs in each of B resamples of the blocks: (B, N)."""
    number = int(blocks.max()) + 1
    drawn = np.random.default_rng([0, 0]).multinomial(number, np.full(number, 1 / number), size=samples)
    return drawn.astype(np.float64)[:, blocks]


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


def _estimate(measured: Floats, resampled: Floats, blocks: int) -> Estimate:
    """The mean over F pairs (or one model) and S seeds, from values (F, S) and resampled values (F, S, B).

    The variance between seeds, measured on one set of images, holds the interaction of seeds and images already, so it
    is taken out of the images' part.
    """
    pairs, seeds = measured.shape
    per_seed, value, nan = measured.mean(axis=0), float(measured.mean()), float("nan")
    known = resampled[..., ~np.isnan(resampled).any(axis=(0, 1))]  # (F, S, B'): a rare class may be absent
    if np.isnan(value) or not known.size:
        return Estimate(value, nan, nan, per_seed, nan, nan)
    if seeds == 1:
        low, high = np.quantile(known.mean(axis=(0, 1)), [ALPHA / 2, 1 - ALPHA / 2])
        return Estimate(value, float(low), float(high), per_seed, nan, nan)
    unlike = known - known.mean(axis=1, keepdims=True)
    interaction = unlike.var(axis=-1).sum(axis=1).mean() / (seeds - 1)
    of_images = max(0.0, known.mean(axis=(0, 1)).var() - interaction / (pairs * seeds)) * blocks / (blocks - 1)
    of_seeds = float(measured.var(axis=1, ddof=1).mean()) / (pairs * seeds)
    error = np.sqrt(of_seeds + of_images)
    if error == 0:
        return Estimate(value, value, value, per_seed, float(value == 0), float(value == 0))
    from scipy.optimize import brentq  # slow to import, and an evaluation, of one seed, ends above
    from scipy.special import stdtrit

    # Cochran's weighted t, with other weights than his variances, which cover up to 98 % with two seeds. Cubes of the
    # standard errors fall below 93 % there when the images matter little, and Satterthwaite's rule to 87 %.
    weights = np.array([of_seeds, of_images]) ** _POWER
    freedom = np.array([pairs * (seeds - 1), blocks - 1])

    def quantile(p: float) -> float:
        return float(-(weights * stdtrit(freedom, p / 2)).sum() / weights.sum())

    half, ratio = quantile(ALPHA) * error, abs(value) / error
    p = _SMALLEST
    if ratio < quantile(_SMALLEST):
        p = float(np.exp(brentq(lambda log_p: quantile(np.exp(log_p)) - ratio, np.log(_SMALLEST), 0.0)))
    return Estimate(value, value - half, value + half, per_seed, p, p)
