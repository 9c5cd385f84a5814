"""Bootstrap of mIoU: the rule for absent classes, intervals that cover, pairing that resolves what is there."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.results.bootstrap import (
    Counts,
    bootstrap_miou,
    bootstrap_nested_miou,
    bootstrap_paired_gain,
    image_weights,
    interval,
    seed_weights,
)
from pipeline.results.statistics import scores


def _counts(rng: np.random.Generator, accuracy: float, images: int = 60, classes: int = 5) -> Counts:
    """(N, K) counts of images of 1000 pixels, of which about `accuracy` of each class are right."""
    truth = rng.multinomial(1000, np.full(classes, 1 / classes), size=images)
    intersection = rng.binomial(truth, accuracy)
    wrong = truth - intersection
    prediction = intersection + np.roll(wrong, 1, axis=1)
    return Counts(intersection, prediction, truth)


def _stack(*seeds: Counts) -> Counts:
    return Counts(*(np.stack(parts) for parts in zip(*seeds, strict=True)))


def _slow_miou(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """PROTOCOL section 5, one class after the other."""
    ious = []
    for k in range(len(images[0][0])):
        i, p, t = (sum(int(image[part][k]) for image in images) for part in range(3))
        if p + t - i > 0:
            ious.append(i / (p + t - i))
    return sum(ious) / len(ious)


def test_every_resample_follows_the_rule_for_absent_classes():
    # class 3 occurs in one image only, class 4 is never annotated but predicted in one image, class 5 is nowhere
    rng = np.random.default_rng(0)
    counts = _counts(rng, 0.8, images=6, classes=3)
    intersection, prediction, truth = (np.pad(part, ((0, 0), (0, 3))) for part in counts)
    truth[2, 3], prediction[2, 3], intersection[2, 3] = 40, 30, 20
    prediction[4, 4] = 7
    samples = bootstrap_miou(intersection, prediction, truth, samples=300, seed=3)
    for weights, sample in zip(image_weights(6, 300, seed=3), samples, strict=True):
        drawn = [n for n, times in enumerate(weights.astype(int)) for _ in range(times)]
        slow = _slow_miou([(intersection[n], prediction[n], truth[n]) for n in drawn])
        assert sample == pytest.approx(slow, abs=1e-12)
    assert len({round(sample, 1) for sample in samples}) > 1  # classes 3 and 4 come and go


def test_more_resamples_than_fit_one_chunk_are_all_there():
    counts = _counts(np.random.default_rng(0), 0.7, images=10)
    assert np.isfinite(bootstrap_miou(*counts, samples=613)).sum() == 613


def test_the_interval_over_images_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    truth = 0.6 / (2 - 0.6)  # IoU when a share of 0.6 is right and mistakes are spread evenly
    hits = 0
    for _ in range(200):
        accuracy = rng.normal(0.6, 0.1, size=(50, 1)).clip(0, 1)  # images differ in difficulty
        pixels = np.full((50, 4), 500)
        right = rng.binomial(pixels, accuracy)
        counts = Counts(right, right + np.roll(pixels - right, 1, axis=1), pixels)
        low, high = interval(bootstrap_miou(*counts, samples=200))
        hits += low <= truth <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_a_single_seed_gives_the_interval_over_images():
    counts = _counts(np.random.default_rng(2), 0.7)
    np.testing.assert_array_equal(bootstrap_nested_miou(_stack(counts)), bootstrap_miou(*counts))


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    low, high = _counts(rng, 0.6), _counts(rng, 0.8)
    alike, different = (bootstrap_nested_miou(_stack(*seeds)) for seeds in ((low, low), (low, high)))
    assert np.ptp(interval(different)) > 3 * np.ptp(interval(alike))


def test_resampled_seeds_vary_as_a_mean_of_independent_seeds_does():
    values = np.array([1.0, 2.0, 4.0])
    means = seed_weights(3, samples=200_000) @ values
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.02)


def test_pairing_resolves_a_small_gain_that_separate_intervals_do_not():
    rng = np.random.default_rng(4)
    hard = rng.uniform(0.3, 0.9, size=(60, 1))  # images differ far more than the models do
    truth = np.full((60, 5), 400)
    chance = rng.uniform(size=(2, 60, 5))  # per seed
    sides = []
    for extra in (0.0, 0.03):
        right = np.floor(truth * (hard + extra) + chance).astype(int)
        sides.append(Counts(right, right + np.roll(truth - right, 1, axis=-1), np.broadcast_to(truth, right.shape)))
    baseline, memory = sides
    low, high = interval(bootstrap_paired_gain(baseline, memory))
    assert 0 < low < high < 0.1
    assert interval(bootstrap_nested_miou(baseline))[1] > interval(bootstrap_nested_miou(memory))[0]


def test_pairing_finds_no_gain_between_equally_good_models():
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(40):
        sides = [_stack(*(_counts(rng, 0.7, images=30) for _ in range(4))) for _ in range(2)]
        low, high = interval(bootstrap_paired_gain(*sides, samples=300))
        found += not low <= 0 <= high
    assert found <= 8  # with four seeds a nominal 5 % is a little more


def test_a_single_image_has_no_interval_and_resolves_nothing():
    one = Counts(*(np.array([[[3, 4]]]), np.array([[[5, 5]]]), np.array([[[4, 6]]])))
    estimate = scores(one).mean()
    assert estimate.value == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert np.isnan(estimate.low)
    assert not estimate.resolved


def test_unequal_shapes_cannot_be_paired():
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="unpaired"):
        bootstrap_paired_gain(_stack(_counts(rng, 0.7, images=5)), _stack(_counts(rng, 0.7, images=6)))


def test_equal_seeds_give_equal_samples():
    counts = _counts(np.random.default_rng(7), 0.7)
    first, again, other = (bootstrap_miou(*counts, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
