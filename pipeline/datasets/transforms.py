"""From an image and its label map to tensors (docs/method.md, "Data augmentation"), in the order of the authors' code.

Images are RGB uint8 (H, W, 3), label maps train ids uint8 (H, W). The steps that albumentations lacks draw from
`self.random_generator`, which `TrainTransform` sets for every sample.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.schema import AugmentationConfig, ResizeConfig
from pipeline.datasets.spec import IGNORE_INDEX

MEAN = (123.675, 116.28, 103.53)  # RGB, on the scale 0..255, for every encoder
STD = (58.395, 57.12, 57.375)

Pixels = NDArray[np.uint8]
Params = dict[str, Any]

_CROP_TRIES = 10
_HUES = 180  # OpenCV's 8-bit hue is in units of two degrees


class TrainTransform:
    """(image, label map, seed) -> (float32 (3, h, w), int64 (h, w)) for a crop of h x w pixels.

    The result depends on the three arguments only. The label of padding is 255, its colour the mean (0 after
    normalisation), and it is centred.
    """

    def __init__(self, config: AugmentationConfig, flip_pairs: Sequence[tuple[int, int]]) -> None:
        steps: list[A.BasicTransform] = [
            RandomScaleResize(config.resize, config.scale),
            ClassBalancedCrop(config.crop, config.max_class_share),
            FlipWithPairs(flip_pairs, p=config.flip),
        ]
        if config.rotation is not None:
            steps.append(IntegerRotation(config.rotation.degrees, p=config.rotation.probability))
        if config.photometric:
            steps.append(PhotometricDistortion())
        steps += [
            A.Normalize(MEAN, STD, max_pixel_value=1.0, p=1.0),
            A.PadIfNeeded(*config.crop, fill=0, fill_mask=IGNORE_INDEX, p=1.0),
        ]
        self.steps = A.Compose(steps)

    def __call__(self, image: Pixels, label: Pixels, seed: int) -> tuple[Tensor, Tensor]:
        """Apply the steps with random draws from `seed`."""
        # One stream for all steps. `set_random_seed` would start the same stream in every step: the draw that enlarges
        # an image would also decide whether it is flipped.
        self.steps.set_random_state(np.random.default_rng(seed), random.Random(seed))
        done = self.steps(image=image, mask=label)
        return _to_tensor(done["image"]), torch.from_numpy(done["mask"].astype(np.int64))


class EvalTransform:
    """Image -> float32 (3, h, w): resized as configured (None: not at all) and normalised. Labels keep their size."""

    def __init__(self, config: ResizeConfig | None) -> None:
        self.config = config
        self.normalise = A.Normalize(MEAN, STD, max_pixel_value=1.0, p=1.0)

    def __call__(self, image: Pixels) -> Tensor:
        """Resize, normalise, transpose."""
        size = resized(image.shape[:2], self.config)
        if size != image.shape[:2]:
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        return _to_tensor(self.normalise(image=image)["image"])


def _to_tensor(image: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) -> contiguous (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def resized(size: tuple[int, int], config: ResizeConfig | None, scale: float = 1.0) -> tuple[int, int]:
    """The (height, width) that an image of `size` is resized to: fitted into the configured box, or the fixed size.

    The box, the fixed size or (without a config) the image's own size is multiplied by `scale`. Sides are at least 1.
    """
    if config is None:
        return tuple(max(1, int(side * scale + 0.5)) for side in size)
    if config.size is not None:
        return tuple(max(1, int(side * scale)) for side in config.size)
    box = int(config.long * scale), int(config.short * scale)
    factor = min(max(box) / max(size), min(box) / min(size))
    return tuple(max(1, int(side * factor + 0.5)) for side in size)


class PairTransform(A.DualTransform):
    """A transform of image and label map."""

    _targets = (Targets.IMAGE, Targets.MASK)


class RandomScaleResize(PairTransform):
    """Resize as `resized` says, by a scale from U[low, high): the image bilinearly, the label map to the nearest."""

    def __init__(self, config: ResizeConfig | None, scale: tuple[float, float]) -> None:
        super().__init__(p=1.0)
        self.config, self.scale = config, scale

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Draw the scale."""
        return {"size": resized(params["shape"][:2], self.config, self.random_generator.uniform(*self.scale))}

    def apply(self, img: Pixels, size: tuple[int, int], **params: Any) -> Pixels:
        """Resize the image."""
        return cv2.resize(img, size[::-1], interpolation=cv2.INTER_LINEAR)  # without antialiasing

    def apply_to_mask(self, mask: Pixels, size: tuple[int, int], **params: Any) -> Pixels:
        """Resize the label map."""
        return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)


class ClassBalancedCrop(PairTransform):
    """Crop to (height, width), or less where the image is smaller.

    Of up to ten random windows, take the first that has more than one class, each with a share of the valid pixels
    below `max_class_share`; otherwise the tenth.
    """

    def __init__(self, size: tuple[int, int], max_class_share: float) -> None:
        super().__init__(p=1.0)
        self.size, self.max_class_share = size, max_class_share

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Draw the window."""
        mask = data["mask"]
        height, width = (min(side, limit) for side, limit in zip(mask.shape, self.size, strict=True))
        for _ in range(_CROP_TRIES):
            top = int(self.random_generator.integers(mask.shape[0] - height + 1))
            left = int(self.random_generator.integers(mask.shape[1] - width + 1))
            window = np.s_[top : top + height, left : left + width]
            counts = np.bincount(mask[window].ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < self.max_class_share:
                break
        return {"window": window}

    def apply(self, img: Pixels, window: tuple[slice, slice], **params: Any) -> Pixels:
        """Crop the image or the label map."""
        return img[window]


class FlipWithPairs(A.HorizontalFlip):
    """Mirror, and swap the classes of every (left, right) pair in the label map."""

    def __init__(self, pairs: Sequence[tuple[int, int]], p: float) -> None:
        super().__init__(p=p)
        self.swap = np.arange(IGNORE_INDEX + 1, dtype=np.uint8)
        for left, right in pairs:
            self.swap[[left, right]] = right, left

    def apply_to_mask(self, mask: Pixels, *args: Any, **params: Any) -> Pixels:
        """Mirror and swap."""
        return self.swap[mask[:, ::-1]]


class IntegerRotation(PairTransform):
    """Rotate by a whole number of degrees in [low, high) without enlarging the image.

    The centre is that of the authors' code: the pixel at (width / 2, height / 2), half a pixel off the middle of the
    grid. The image is interpolated bicubically with black outside, the label is nearest with 255 outside.
    """

    def __init__(self, degrees: tuple[int, int], p: float) -> None:
        super().__init__(p=p)
        self.degrees = degrees

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Draw the angle."""
        height, width = params["shape"][:2]
        angle = int(self.random_generator.integers(*self.degrees))
        return {"matrix": cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)}

    def apply(self, img: Pixels, matrix: NDArray[np.float64], **params: Any) -> Pixels:
        """Rotate the image."""
        return cv2.warpAffine(img, matrix, img.shape[1::-1], flags=cv2.INTER_CUBIC, borderValue=(0, 0, 0))

    def apply_to_mask(self, mask: Pixels, matrix: NDArray[np.float64], **params: Any) -> Pixels:
        """Rotate the label map."""
        return cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderValue=IGNORE_INDEX)


class PhotometricDistortion(A.ImageOnlyTransform):
    """Change brightness, contrast, saturation and hue, each with probability one half.

    Contrast comes before or after saturation and hue, with equal probability. After every step, values are clipped to
    0..255 and truncated to uint8.
    """

    def __init__(self) -> None:
        super().__init__(p=1.0)

    def get_params(self) -> Params:
        """Draw the strength of every step; a step that does not happen has its neutral value."""
        rng = self.random_generator
        brightness, first, contrast, saturation, hue = rng.random(5) < 0.5
        return {
            "brightness": rng.uniform(-32, 32) if brightness else 0.0,
            "contrast_first": bool(first),
            "contrast": rng.uniform(0.5, 1.5) if contrast else 1.0,
            "saturation": rng.uniform(0.5, 1.5) if saturation else 1.0,
            "hue": int(rng.integers(-18, 18)) if hue else 0,
        }

    def apply(
        self,
        img: Pixels,
        brightness: float,
        contrast_first: bool,
        contrast: float,
        saturation: float,
        hue: int,
        **params: Any,
    ) -> Pixels:
        """Distort the image."""
        img = _linear(img, 1.0, brightness)
        if contrast_first:
            img = _linear(img, contrast, 0.0)
        if saturation != 1.0:
            hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
            hsv[..., 1] = _linear(hsv[..., 1], saturation, 0.0)
            img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if hue != 0:
            hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(np.int16) + hue) % _HUES
            img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return img if contrast_first else _linear(img, contrast, 0.0)


def _linear(channel: Pixels, factor: float, offset: float) -> Pixels:
    """factor * value + offset, clipped to 0..255 and truncated, for every uint8 value."""
    if factor == 1.0 and offset == 0.0:
        return channel
    table = np.clip(np.arange(256, dtype=np.float32) * factor + offset, 0, 255).astype(np.uint8)
    return table[channel]
