"""Each rule of the transforms (docs/method.md, "Data augmentation") against a small independent computation."""

from __future__ import annotations

import colorsys
import random

import cv2
import numpy as np
import pytest
import torch

from pipeline.config.schema import AugmentationConfig, ResizeConfig, RotationConfig
from pipeline.datasets.transforms import (
    MEAN,
    STD,
    ClassBalancedCrop,
    EvalTransform,
    FlipWithPairs,
    IntegerRotation,
    PhotometricDistortion,
    RandomScaleResize,
    TrainTransform,
    resized,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 80, 3), np.uint8)
LABEL = np.kron(RNG.integers(0, 5, (6, 8), np.uint8), np.ones((10, 10), np.uint8))
PLAIN = {"scale": (1.0, 1.0), "flip": 0.0, "photometric": False}


def normalised(image):
    """(H, W, 3) uint8 -> (3, H, W) float64."""
    return ((image - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


def seeded(transform):
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    return transform


def test_normalisation_is_rgb_by_mean_and_deviation():
    image, label = TrainTransform(AugmentationConfig(crop=(60, 80), max_class_share=1.0, **PLAIN), ())(IMAGE, LABEL, 0)
    assert image.dtype == torch.float32
    assert label.dtype == torch.int64
    assert np.allclose(image.numpy(), normalised(IMAGE), atol=1e-5)
    assert np.array_equal(label.numpy(), LABEL)


def box(long, short):
    return ResizeConfig(long=long, short=short)


def fixed(height, width):
    return ResizeConfig(keep_ratio=False, size=(height, width))


@pytest.mark.parametrize(
    ("size", "config", "scale", "expected"),
    [
        ((375, 500), box(2048, 512), 1.0, (512, 683)),  # 500 * 512/375 = 682.67
        ((375, 500), box(2048, 512), 0.5, (256, 341)),
        ((100, 900), box(2048, 512), 1.0, (228, 2048)),  # the long side binds: 2048/900
        ((900, 100), box(2048, 512), 1.0, (2048, 228)),  # the box turns with the image
        ((1024, 2048), box(2048, 1024), 1.0, (1024, 2048)),
        ((375, 500), box(2048, 512), 0.777, (397, 529)),  # int(512 * 0.777) = 397; 500 * 397/375 = 529.33
        ((60, 80), fixed(520, 520), 0.777, (404, 404)),  # truncated
        ((60, 81), None, 0.5, (30, 41)),  # the image's own size, rounded
        ((1, 1500), box(600, 300), 1.0, (1, 600)),  # at least one pixel
        ((1, 1500), fixed(3, 800), 0.25, (1, 200)),
        ((1, 1500), None, 0.25, (1, 375)),
    ],
)
def test_size_after_resizing(size, config, scale, expected):
    assert resized(size, config, scale) == expected


def test_scale_is_uniform_in_the_range():
    step = RandomScaleResize(None, (0.5, 2.0))
    heights = [step(image=IMAGE, mask=LABEL)["image"].shape[0] for _ in range(400)]
    assert 30 <= min(heights) < 34
    assert 116 < max(heights) <= 120
    assert np.mean(heights) == pytest.approx(75, abs=5)


def test_images_are_resized_bilinearly_and_labels_to_the_nearest():
    done = RandomScaleResize(None, (0.5, 0.5))(image=IMAGE, mask=LABEL)
    blocks = IMAGE.reshape(30, 2, 40, 2, 3).astype(float).mean(axis=(1, 3))  # halving: each pixel between four
    assert np.abs(done["image"] - blocks).max() <= 0.5
    assert np.array_equal(done["mask"], LABEL[::2, ::2])


def test_a_crop_is_a_window_of_both():
    done = seeded(ClassBalancedCrop((20, 30), 0.75))(image=np.dstack([LABEL] * 3), mask=LABEL)
    assert done["mask"].shape == (20, 30)
    assert np.array_equal(done["image"][..., 0], done["mask"])
    assert ClassBalancedCrop((100, 30), 0.75)(image=IMAGE, mask=LABEL)["mask"].shape == (60, 30)  # clipped


def test_crops_reach_every_corner():
    rows, columns = np.mgrid[:4, :5].astype(np.uint8)
    step = ClassBalancedCrop((2, 3), 1.0)
    corners = set()
    for _ in range(200):
        done = step(image=np.dstack([rows, columns, rows]), mask=rows)
        corners.add(tuple(done["image"][0, 0, :2].tolist()))
    assert corners == {(r, c) for r in range(3) for c in range(3)}


def test_crops_filled_by_one_class_are_tried_again():
    label = np.zeros((40, 400), np.uint8)
    label[:, 380:] = 1
    label[:, 200:210] = 255
    step = seeded(ClassBalancedCrop((40, 40), 0.75))
    crops = [step(image=IMAGE[:1, :1].repeat(40, 0).repeat(400, 1), mask=label)["mask"] for _ in range(300)]

    def good(crop):
        counts = np.bincount(crop[crop != 255], minlength=2)
        return counts.min() > 0 and counts.max() / counts.sum() < 0.75

    chance = 10 / 361  # windows that start at 351..360: class 1 fills more than a quarter
    assert np.mean([good(crop) for crop in crops]) == pytest.approx(1 - (1 - chance) ** 10, abs=0.08)


@pytest.mark.parametrize(
    ("value", "width", "tries"),
    [(0, 15, 10), (0, 14, 1), (255, 14, 10)],
    ids=["three quarters", "less than three quarters", "ignored pixels are not a class"],
)
def test_a_crop_needs_two_classes_that_fill_less_than_three_quarters(value, width, tries):
    label = np.ones((20, 20), np.uint8)
    label[:, :width] = value
    step, draws = ClassBalancedCrop((20, 20), 0.75), []
    step.set_random_state(CountingGenerator(draws), None)
    step(image=np.dstack([label] * 3), mask=label)
    assert len(draws) == 2 * tries  # row and column


class CountingGenerator:
    """A generator that writes down its draws."""

    def __init__(self, draws):
        self.draws, self.rng = draws, np.random.default_rng(0)

    def integers(self, high):
        self.draws.append(high)
        return self.rng.integers(high)


def test_flip_mirrors_both_and_swaps_pairs():
    label = np.array([[0, 14, 15, 16, 17, 18, 19, 255]], np.uint8)
    image = np.arange(24, dtype=np.uint8).reshape(1, 8, 3)
    done = FlipWithPairs(((14, 15), (16, 17), (18, 19)), p=1.0)(image=image, mask=label)
    assert done["mask"].tolist() == [[255, 18, 19, 16, 17, 14, 15, 0]]
    assert np.array_equal(done["image"], image[:, ::-1])


def test_flip_probability_and_its_independence_of_the_scale():
    transform = TrainTransform(AugmentationConfig(crop=(8, 8), scale=(0.5, 2.0), max_class_share=1.0), ())
    wedge = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    flips, steps = [], []
    for seed in range(400):
        _, label = transform(np.dstack([wedge] * 3), wedge, seed)
        slope = label[0, -1] - label[0, 0]
        flips.append(bool(slope < 0))
        steps.append(abs(int(slope)))  # large when the image was shrunk
    assert np.mean(flips) == pytest.approx(0.5, abs=0.08)
    assert abs(np.corrcoef(flips, steps)[0, 1]) < 0.15


def test_rotation_draws_whole_degrees_in_the_range():
    step = IntegerRotation((-30, 30), p=1.0)
    angles = set()
    for _ in range(2000):
        matrix = step.get_params_dependent_on_data({"shape": (60, 80, 3)}, {})["matrix"]
        angles.add(float(np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])).round(6)))
    assert angles == {float(a) for a in range(-30, 30)}


def test_rotation_turns_about_the_pixel_at_half_the_size():
    """A quarter turn about (30, 30) takes column x to row 60 - x: the first row comes from outside."""
    done = IntegerRotation((90, 91), p=1.0)(image=IMAGE[:, :60], mask=LABEL[:, :60])
    assert np.array_equal(done["mask"][1:], np.rot90(LABEL[:, :60])[:-1])
    assert np.array_equal(done["image"][1:], np.rot90(IMAGE[:, :60])[:-1])
    assert (done["mask"][0] == 255).all()
    assert (done["image"][0] == 0).all()


def test_rotated_corners_are_black_before_normalisation_and_padding_is_not():
    config = AugmentationConfig(
        crop=(60, 90), max_class_share=1.0, rotation=RotationConfig(probability=1.0, degrees=(30, 31)), **PLAIN
    )
    image, label = TrainTransform(config, ())(np.full_like(IMAGE, 200), LABEL, 0)
    assert np.allclose(image[:, 0, 5].numpy(), -np.array(MEAN) / np.array(STD), atol=1e-5)  # corner of the 80 wide crop
    assert (image[:, 0, 0] == 0).all()
    assert label[0, 0] == label[0, 5] == 255


PARAMS = {"brightness": 0.0, "contrast_first": True, "contrast": 1.0, "saturation": 1.0, "hue": 0}


@pytest.mark.parametrize(
    ("params", "value", "expected"),
    [
        ({"brightness": 10.7}, 100, 110),  # truncated, not rounded
        ({"brightness": -31.5}, 20, 0),
        ({"brightness": 31.5}, 250, 255),
        ({"contrast": 1.499}, 101, 151),  # 151.399
        ({"contrast": 1.499}, 200, 255),
        ({"brightness": 20.6, "contrast": 0.5}, 101, 60),  # (101 + 20.6 -> 121) / 2 = 60.5 -> 60
    ],
)
def test_brightness_and_contrast_truncate_after_each_step(params, value, expected):
    grey = np.full((1, 1, 3), value, np.uint8)
    assert PhotometricDistortion().apply(grey, **{**PARAMS, **params})[0, 0].tolist() == [expected] * 3


def test_saturation_and_hue_act_in_hsv():
    colour = np.array([[[200, 100, 50]]], np.uint8)
    h, s, v = colorsys.rgb_to_hsv(*(colour[0, 0] / 255))
    step = PhotometricDistortion()
    paler = np.array(colorsys.hsv_to_rgb(h, s * 0.5, v)) * 255
    assert np.allclose(step.apply(colour, **{**PARAMS, "saturation": 0.5})[0, 0], paler, atol=3)
    turned = np.array(colorsys.hsv_to_rgb((h - 18 / 180) % 1, s, v)) * 255  # below 0: wraps
    assert np.allclose(step.apply(colour, **{**PARAMS, "hue": -18})[0, 0], turned, atol=5)


def test_late_contrast_follows_saturation():
    colour = np.array([[[250, 100, 50]]], np.uint8)
    params = {**PARAMS, "contrast": 1.4, "saturation": 0.5, "contrast_first": False}
    step = PhotometricDistortion()
    paler = step.apply(colour, **{**params, "contrast": 1.0})
    assert np.array_equal(step.apply(colour, **params), np.clip(paler * np.float32(1.4), 0, 255).astype(np.uint8))


def test_distortion_draws_each_step_half_of_the_time_within_its_range():
    step = seeded(PhotometricDistortion())
    drawn = [step.get_params() for _ in range(2000)]
    ranges = {"brightness": (0.0, -32, 32), "contrast": (1.0, 0.5, 1.5), "saturation": (1.0, 0.5, 1.5)}
    for name, (neutral, low, high) in ranges.items():
        values = np.array([d[name] for d in drawn])
        assert np.mean(values != neutral) == pytest.approx(0.5, abs=0.05)
        assert values.min() == pytest.approx(low, abs=0.1 * (high - low))
        assert values.max() == pytest.approx(high, abs=0.1 * (high - low))
    assert {d["hue"] for d in drawn} == set(range(-18, 18))
    assert np.mean([d["contrast_first"] for d in drawn]) == pytest.approx(0.5, abs=0.05)


def test_padding_is_centred_mean_colour_and_ignored():
    image, label = TrainTransform(AugmentationConfig(crop=(65, 91), max_class_share=1.0, **PLAIN), ())(IMAGE, LABEL, 0)
    assert image.shape == (3, 65, 91)
    # 5 px: 2 above, 3 below; 11 px: 5 to the left, 6 to the right
    assert np.allclose(image[:, 2:62, 5:85].numpy(), normalised(IMAGE), atol=1e-5)
    outside = torch.ones(65, 91, dtype=torch.bool)
    outside[2:62, 5:85] = False
    assert (image[:, outside] == 0).all()
    assert (label[outside] == 255).all()
    assert np.array_equal(label[2:62, 5:85].numpy(), LABEL)


def test_the_steps_follow_each_other_as_published():
    config = AugmentationConfig(crop=(47, 47), rotation=RotationConfig())
    assert [type(step).__name__ for step in TrainTransform(config, ()).steps.transforms] == [
        *("RandomScaleResize", "ClassBalancedCrop", "FlipWithPairs", "IntegerRotation", "PhotometricDistortion"),
        *("Normalize", "PadIfNeeded"),
    ]


def test_equal_seeds_give_equal_samples_and_others_differ():
    config = AugmentationConfig(crop=(40, 40), rotation=RotationConfig())
    one, two = TrainTransform(config, ()), TrainTransform(config, ())
    two(IMAGE, LABEL, 99)  # what was drawn before does not matter
    for seed in (0, 1, 2**63):
        assert all(torch.equal(a, b) for a, b in zip(one(IMAGE, LABEL, seed), two(IMAGE, LABEL, seed), strict=True))
    assert not torch.equal(one(IMAGE, LABEL, 0)[0], one(IMAGE, LABEL, 1)[0])


def test_image_and_label_stay_together():
    """An image that shows its own label still does after every geometric step."""
    config = AugmentationConfig(crop=(40, 40), scale=(1.0, 1.0), photometric=False, max_class_share=1.0)
    for seed in range(10):
        image, label = TrainTransform(config, ())(np.dstack([LABEL] * 3), LABEL, seed)
        assert np.array_equal(np.round(image[0].numpy() * STD[0] + MEAN[0]), label.numpy())


def test_evaluation_resizes_if_configured():
    assert np.allclose(EvalTransform(None)(IMAGE).numpy(), normalised(IMAGE), atol=1e-5)
    done = EvalTransform(ResizeConfig(long=2048, short=30))(IMAGE)
    assert np.allclose(done.numpy(), normalised(cv2.resize(IMAGE, (40, 30), interpolation=cv2.INTER_LINEAR)), atol=1e-5)
    assert EvalTransform(ResizeConfig(keep_ratio=False, size=(47, 48)))(IMAGE).shape == (3, 47, 48)
