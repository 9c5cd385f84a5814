"""Bootstrap intervals for mIoU: over images, over seeds and images (nested), and for a difference (paired).

The mean IoU is no mean over images, so every resample recomputes it from summed pixel counts. Counts are integers below
2**53, so the float64 sums are exact and the result does not depend on the order of summation.

Rule for classes (PROTOCOL section 5), applied to each resample on its own: a class with no truth and no prediction is
left out of the mean; a class that is predicted but absent from the truth counts as 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.results.metrics import iou, miou

SAMPLES = 1000
CHUNK = 250  # resamples per matrix product: bounds the scratch memory to CHUNK * (images + classes) floats

Floats = NDArray[np.float64]

# Two streams from one seed, so that the drawn images do not depend on how many seeds there are.
_IMAGES, _SEEDS = 0, 1


class Counts(NamedTuple):
    """Pixel counts per image and class on valid pixels: each (N, K), or (S, N, K) for S seeds."""

    intersection: NDArray
    prediction: NDArray
    truth: NDArray


def image_weights(images: int, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """How often each of N images is drawn in each of B resamples: (B, N), every row sums to N."""
    rng = np.random.default_rng([seed, _IMAGES])
    return rng.multinomial(images, np.full(images, 1 / images), size=samples).astype(np.float64)


def block_weights(blocks: NDArray, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """As `image_weights`, but images of a block are drawn together: frames of a video resemble their neighbours.

    blocks: (N,) number of the block of each image, 0 and up. Rows sum to N on average, as blocks differ in size.
    """
    return image_weights(int(blocks.max()) + 1, samples, seed)[:, blocks]


def seed_weights(seeds: int, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """Weight of each of S seeds in each of B resamples: (B, S), every row sums to 1.

    The mean of S resampled values varies less than it should, by the factor (S - 1) / S in variance. Deviations from
    equal weights are widened by sqrt(S / (S - 1)) to undo that: it matters for the two to five seeds of such studies.
    """
    if seeds == 1:
        return np.ones((samples, 1))
    rng = np.random.default_rng([seed, _SEEDS])
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    return 1 / seeds + np.sqrt(seeds / (seeds - 1)) * (drawn - 1 / seeds)


def resampled_iou(counts: Counts, weights: Floats) -> Floats:
    """IoU per class (B, K) of each resample, from counts (N, K) and image weights (B, N)."""
    parts = [np.asarray(part, dtype=np.float64) for part in counts]
    chunks = [weights[start : start + CHUNK] for start in range(0, len(weights), CHUNK)]
    return np.concatenate([iou(*(chunk @ part for part in parts)) for chunk in chunks])


def over_seeds(values: Floats, weights: Floats) -> Floats:
    """Mean over the resampled seeds: values (S, B, ...) and seed weights (B, S) -> (B, ...)."""
    return np.einsum("sb...,bs->b...", values, weights)


def bootstrap_miou(
    intersection: NDArray, prediction: NDArray, truth: NDArray, samples: int = SAMPLES, seed: int = 0
) -> Floats:
    """mIoU of B resamples of the images: fractions (B,), from counts (N, K)."""
    parts = [np.asarray(part, dtype=np.float64) for part in (intersection, prediction, truth)]
    weights = image_weights(len(truth), samples, seed)
    chunks = [weights[start : start + CHUNK] for start in range(0, samples, CHUNK)]
    return np.concatenate([miou(*(chunk @ part for part in parts)) for chunk in chunks])


def bootstrap_nested_miou(counts: Counts, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """Mean over seeds of the mIoU, seeds and images resampled: fractions (B,), from counts (S, N, K).

    All seeds of a resample see the same images, since one hypothetical study has one test set.
    """
    per_seed = np.stack([bootstrap_miou(*one, samples=samples, seed=seed) for one in zip(*counts, strict=True)])
    return over_seeds(per_seed, seed_weights(len(per_seed), samples, seed))


def bootstrap_paired_gain(baseline: Counts, candidate: Counts, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """Gain in mIoU of `candidate` over `baseline`: fractions (B,), from counts (S, N, K) each.

    Both see the same images and the same seeds in every resample, so that what they share cancels. Raises ValueError
    when the shapes differ.
    """
    if baseline.truth.shape != candidate.truth.shape:
        raise ValueError(f"unpaired counts: {baseline.truth.shape} and {candidate.truth.shape}")
    return bootstrap_nested_miou(candidate, samples, seed) - bootstrap_nested_miou(baseline, samples, seed)


def interval(samples: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of resampled values (B,). NaN resamples are left out; (NaN, NaN) when nothing is left."""
    finite = samples[~np.isnan(samples)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
