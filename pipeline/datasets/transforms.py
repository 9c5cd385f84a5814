"""From an image and its label map to tensors (PROTOCOL section 2); the order of the steps is that of the authors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.schema import AugmentationConfig, ResizeConfig
from pipeline.datasets import augment
from pipeline.datasets.spec import IGNORE_INDEX

MEAN = (123.675, 116.28, 103.53)  # RGB, of the 0..255 scale, for every encoder
STD = (58.395, 57.12, 57.375)


class TrainTransform:
    """(image uint8 (H, W, 3) RGB, label uint8 (H, W), seed) -> (float32 (3, h, w), int64 (h, w)); h, w: the crop.

    The result depends on nothing but the three arguments. Padding, up to the crop and centred, is 0 after
    normalisation (the mean colour) and ignored in the label. A crop is never transposed: a batch needs one shape.
    """

    def __init__(self, config: AugmentationConfig, flip_pairs: Sequence[tuple[int, int]]) -> None:
        steps: list[A.BasicTransform] = [
            augment.RandomScaleResize(config.resize, config.scale),
            augment.ClassBalancedCrop(config.crop, config.max_class_share),
            augment.FlipWithPairs(flip_pairs, p=config.flip),
        ]
        if config.rotation is not None:
            steps.append(augment.IntegerRotation(config.rotation.degrees, p=config.rotation.probability))
        if config.photometric:
            steps.append(augment.PhotometricDistortion())
        steps += [
            A.Normalize(MEAN, STD, max_pixel_value=1.0, p=1.0),
            A.PadIfNeeded(*config.crop, fill=0, fill_mask=IGNORE_INDEX, p=1.0),
        ]
        self.steps = A.Compose(steps)

    def __call__(self, image: NDArray[np.uint8], label: NDArray[np.uint8], seed: int) -> tuple[Tensor, Tensor]:
        """Run the steps with draws from `seed`."""
        # One stream for all steps. `set_random_seed` would give every step the same stream from its beginning: the
        # draw that enlarges an image would also decide that it is flipped.
        self.steps.set_random_state(np.random.default_rng(seed), random.Random(seed))
        done = self.steps(image=image, mask=label)
        return _to_tensor(done["image"]), torch.from_numpy(done["mask"].astype(np.int64))


class TestTransform:
    """Image uint8 (H, W, 3) RGB -> float32 (3, h, w): resized as configured (None: not at all) and normalised."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    def __init__(self, config: ResizeConfig | None) -> None:
        self.config = config
        self.normalise = A.Normalize(MEAN, STD, max_pixel_value=1.0, p=1.0)

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Resize, normalise, transpose."""
        size = augment.resized(image.shape[:2], self.config)
        if size != image.shape[:2]:
            image = augment.resize_image(image, size)
        return _to_tensor(self.normalise(image=image)["image"])


def train_transform(config: AugmentationConfig, flip_pairs: Sequence[tuple[int, int]]) -> TrainTransform:
    """The training transform of a benchmark on a dataset with these (left, right) classes."""
    return TrainTransform(config, flip_pairs)


def test_transform(config: ResizeConfig | None) -> TestTransform:
    """The evaluation transform; labels keep their size."""
    return TestTransform(config)


test_transform.__test__ = False


def _to_tensor(image: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) -> contiguous (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
