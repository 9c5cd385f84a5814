"""Bootstrap of mIoU: the rule for absent classes, intervals that cover, pairing that resolves what is there."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from benchmarks.coverage import simulate
from pipeline.results.metrics import Counts
from pipeline.results.statistics import (
    Estimate,
    Scores,
    block_weights,
    frame_blocks,
    gain,
    holm,
    pooled_gain,
    scores,
)


def _counts(rng: np.random.Generator, accuracy: float, images: int = 60, classes: int = 5) -> Counts:
    """(N, K) counts of images of 1000 pixels, of which about `accuracy` of each class are right."""
    truth = rng.multinomial(1000, np.full(classes, 1 / classes), size=images)
    intersection = rng.binomial(truth, accuracy)
    wrong = truth - intersection
    prediction = intersection + np.roll(wrong, 1, axis=1)
    return Counts(intersection, prediction, truth)


def _scores(*seeds: Counts, samples: int = 2000) -> Scores:
    """Of images that are resampled one by one."""
    return scores(Counts.of_seeds(seeds), np.arange(len(seeds[0].truth)), samples)


def _slow_miou(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """The definition (docs/method.md, "Inference and metrics"), one class after the other."""
    ious = []
    for k in range(len(images[0][0])):
        i, p, t = (sum(int(image[part][k]) for image in images) for part in range(3))
        if p + t - i > 0:
            ious.append(i / (p + t - i))
    return sum(ious) / len(ious)


def test_every_resample_follows_the_rule_for_absent_classes() -> None:
    # class 3 occurs in one image only, class 4 is never annotated but predicted in one image, class 5 is nowhere
    counts = _counts(np.random.default_rng(0), 0.8, images=6, classes=3)
    intersection, prediction, truth = (np.pad(part, ((0, 0), (0, 3))) for part in counts)
    truth[2, 3], prediction[2, 3], intersection[2, 3] = 40, 30, 20
    prediction[4, 4] = 7
    samples = np.nanmean(_scores(Counts(intersection, prediction, truth), samples=300).resampled[0], axis=-1)
    for weights, sample in zip(block_weights(np.arange(6), 300), samples, strict=True):
        drawn = [n for n, times in enumerate(weights.astype(int)) for _ in range(times)]
        slow = _slow_miou([(intersection[n], prediction[n], truth[n]) for n in drawn])
        assert sample == pytest.approx(slow, abs=1e-12)
    assert len({round(sample, 1) for sample in samples}) > 1  # classes 3 and 4 come and go


def test_more_resamples_than_fit_one_chunk_are_all_there() -> None:
    counts = _counts(np.random.default_rng(0), 0.7, images=10)
    assert np.isfinite(_scores(counts, samples=613).resampled).sum() == 613 * 5


def test_the_interval_over_images_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    truth = 0.6 / (2 - 0.6)  # IoU when a share of 0.6 is right and mistakes are spread evenly
    hits = 0
    for _ in range(200):
        accuracy = rng.normal(0.6, 0.1, size=(50, 1)).clip(0, 1)  # images differ in difficulty
        pixels = np.full((50, 4), 500)
        right = rng.binomial(pixels, accuracy)
        counts = Counts(right, right + np.roll(pixels - right, 1, axis=1), pixels)
        estimate = _scores(counts, samples=200).mean()
        hits += estimate.low <= truth <= estimate.high
    assert 0.90 <= hits / 200 <= 0.99


def test_images_of_a_block_are_drawn_together() -> None:
    blocks = frame_blocks([f"{sequence}_{n}" for sequence in "ab" for n in range(5)], 3)
    assert blocks.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    weights = block_weights(blocks, 50)
    assert (weights[:, blocks == 0] == weights[:, :1]).all()
    assert len(np.unique(weights[:, 0])) > 1


def test_single_images_are_blocks_of_one() -> None:
    assert frame_blocks(["x", "y_1", "y_2"], 1).tolist() == [0, 1, 2]


def test_neighbours_that_resemble_each_other_need_blocks() -> None:
    counts = _counts(np.random.default_rng(8), 0.7, images=12)
    repeated = Counts(*(np.repeat(part, 5, axis=0) for part in counts))
    narrow, honest = (scores(Counts.of_seeds([repeated]), np.arange(60) // n).mean() for n in (1, 5))
    assert honest.high - honest.low > 1.8 * (narrow.high - narrow.low)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    low, high = _counts(rng, 0.6), _counts(rng, 0.8)
    alike, different = (_scores(*seeds).mean() for seeds in ((low, low), (low, high)))
    assert different.high - different.low > 3 * (alike.high - alike.low)
    assert different.deviation > 0


def test_scores_of_single_seeds_joined_are_those_of_all() -> None:
    rng = np.random.default_rng(9)
    seeds = [_counts(rng, accuracy) for accuracy in (0.6, 0.7)]
    joined = Scores.of_seeds([_scores(counts) for counts in seeds])
    assert np.array_equal(joined.resampled, _scores(*seeds).resampled)
    assert np.array_equal(joined.measured, _scores(*seeds).measured)


def test_pairing_resolves_a_small_gain_that_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(4)
    hard = rng.uniform(0.3, 0.9, size=(60, 1))  # images differ far more than the models do
    truth = np.full((60, 5), 400)
    chance = rng.uniform(size=(2, 60, 5))  # per seed
    sides = []
    for extra in (0.0, 0.03):
        right = np.floor(truth * (hard + extra) + chance).astype(int)  # (2, 60, 5)
        seeds = [Counts(r, r + np.roll(truth - r, 1, axis=-1), truth) for r in right]
        sides.append(_scores(*seeds))
    baseline, memory = sides
    estimate = gain(baseline, memory)
    assert 0 < estimate.low < estimate.high < 0.1
    assert estimate.resolved
    assert baseline.mean().high > memory.mean().low


def test_pairing_finds_no_gain_between_equally_good_models() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(40):
        sides = [_scores(*(_counts(rng, 0.7, images=30) for _ in range(4)), samples=300) for _ in range(2)]
        found += gain(*sides).resolved
    assert found <= 6  # 2 are expected


def test_the_pooled_gain_is_the_mean_of_the_gains_and_the_gain_that_of_the_classes() -> None:
    rng = np.random.default_rng(10)
    pairs = [tuple(_scores(_counts(rng, accuracy)) for accuracy in side) for side in ((0.6, 0.7), (0.5, 0.52))]
    pooled = pooled_gain(pairs)
    assert pooled.value == pytest.approx(np.mean([gain(*pair).value for pair in pairs]))
    classes = [gain(*pairs[0], np.array([k])).value for k in range(pairs[0][0].measured.shape[1])]
    assert np.mean(classes) == pytest.approx(gain(*pairs[0]).value)


def test_pairs_pooled_with_two_seeds_each_are_surer_than_one_pair() -> None:
    rng = np.random.default_rng(11)
    pairs = [
        tuple(_scores(*(_counts(rng, rng.normal(a, 0.01)) for _ in range(2))) for a in (0.6, 0.65)) for _ in range(4)
    ]
    pooled, single = pooled_gain(pairs), gain(*pairs[0])
    assert 4 * (pooled.high - pooled.low) < single.high - single.low
    assert pooled.resolved


def test_one_training_of_each_side_resolves_nothing() -> None:
    rng = np.random.default_rng(12)
    estimate = gain(_scores(_counts(rng, 0.5)), _scores(_counts(rng, 0.8)))
    assert estimate.low > 0.1  # over images alone
    assert np.isnan(estimate.p)
    assert not estimate.covers_seeds
    assert not estimate.resolved


def test_where_the_images_do_not_matter_the_interval_is_student_s() -> None:
    differences = np.array([0.01, 0.03, 0.02])
    pixels = np.full((3, 50, 1), 1e9)
    sides = []
    for level in (np.full(3, 0.5), 0.5 + differences):
        right = np.round(pixels * level[:, None, None])
        union = (pixels - right) / 2
        sides.append(scores(Counts(right, right + union, right + union), np.arange(50), 200))
    expected = scipy.stats.ttest_1samp(differences, 0)
    estimate = gain(*sides)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-7)
    assert estimate.p == pytest.approx(expected.pvalue, rel=1e-4)


def test_the_p_value_is_below_0_05_exactly_where_the_interval_excludes_zero() -> None:
    rng = np.random.default_rng(13)
    for _ in range(60):
        accuracy = rng.normal(0.7, 0.01, size=(2, 3))
        sides = [_scores(*(_counts(rng, a, images=20) for a in side), samples=200) for side in accuracy]
        estimate = gain(*sides)
        assert (estimate.p < 0.05) == (estimate.low > 0 or estimate.high < 0)


def test_p_values_judged_together_are_adjusted_step_by_step() -> None:
    def estimate(p: float) -> Estimate:
        return Estimate(0.1, 0.0, 0.2, np.zeros(2), p, p)

    judged = holm([estimate(p) for p in (0.04, 0.01, float("nan"), 0.03)])
    assert [each.adjusted for each in judged] == pytest.approx([0.06, 0.03, float("nan"), 0.06], nan_ok=True)
    assert [each.resolved for each in judged] == [False, True, False, False]
    assert [each.p for each in judged][:2] == [0.04, 0.01]


@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("interaction", [0.0, 1.0])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 2.0])
def test_intervals_over_two_seeds_hold_the_truth_about_95_times_in_100(
    pairs: int, ratio: float, interaction: float
) -> None:
    """A bootstrap over two seeds covered 61 to 94 %. Of 150 intervals between 90 and 99.5 %: chance moves it by 3.5."""
    held, _ = simulate(pairs, 2, ratio, interaction, replications=150, samples=100)
    assert 0.9 <= held <= 0.995


def test_a_single_image_has_no_interval_and_resolves_nothing() -> None:
    one = Counts(np.array([[3, 4]]), np.array([[5, 5]]), np.array([[4, 6]]))
    estimate = _scores(one).mean()
    assert estimate.value == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert np.isnan(estimate.low)
    assert not estimate.resolved


def test_scores_of_different_numbers_of_seeds_cannot_be_paired() -> None:
    counts = _counts(np.random.default_rng(6), 0.7)
    with pytest.raises(ValueError, match="cannot pair"):
        gain(_scores(counts), _scores(counts, counts))
