"""Transforms that albumentations does not have in the form of PROTOCOL section 2.

All draw from `self.random_generator`, which `transforms.TrainTransform` sets for every sample, and work on an image of
RGB uint8 (H, W, 3) and a label map (`mask`) of train ids, uint8 (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets
from numpy.typing import NDArray

from pipeline.config.schema import ResizeConfig
from pipeline.datasets.spec import IGNORE_INDEX

Pixels = NDArray[np.uint8]
Params = dict[str, Any]

_CROP_TRIES = 10
_HUES = 180  # OpenCV's 8-bit hue is in units of two degrees


def resized(size: tuple[int, int], config: ResizeConfig | None, scale: float = 1.0) -> tuple[int, int]:
    """The (height, width) to resize an image of `size` to, with the box (or fixed size, or own size) times `scale`.

    At least one pixel each: of a line 1500 pixels long and 1 wide, a factor below 1/2 would leave nothing.
    """
    if config is None:
        return tuple(max(1, int(side * scale + 0.5)) for side in size)
    if config.size is not None:
        return tuple(max(1, int(side * scale)) for side in config.size)
    box = int(config.long * scale), int(config.short * scale)
    factor = min(max(box) / max(size), min(box) / min(size))
    return tuple(max(1, int(side * factor + 0.5)) for side in size)


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Bilinear, without antialiasing, to (height, width)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


class PairTransform(A.DualTransform):
    """A transform of image and label map, and of nothing else."""

    _targets = (Targets.IMAGE, Targets.MASK)


class RandomScaleResize(PairTransform):
    """Resize by `resized` with a scale drawn from U[low, high)."""

    def __init__(self, config: ResizeConfig | None, scale: tuple[float, float]) -> None:
        super().__init__(p=1.0)
        self.config, self.scale = config, scale

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Draw the scale."""
        size = resized(params["shape"][:2], self.config, self.random_generator.uniform(*self.scale))
        return {"size": size}

    def apply(self, img: Pixels, size: tuple[int, int], **params: Any) -> Pixels:
        """Bilinear."""
        return resize_image(img, size)

    def apply_to_mask(self, mask: Pixels, size: tuple[int, int], **params: Any) -> Pixels:
        """Nearest."""
        return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)


class ClassBalancedCrop(PairTransform):
    """Crop to (height, width), clipped where the image is smaller.

    Up to ten places are tried; one is taken when it holds more than one class and none fills `max_class_share` of its
    valid pixels or more; the tenth is taken as it is.
    """

    def __init__(self, size: tuple[int, int], max_class_share: float) -> None:
        super().__init__(p=1.0)
        self.size, self.max_class_share = size, max_class_share

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Try places until the label map inside one is varied enough."""
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
        """The window, of image or label map."""
        return img[window]


class FlipWithPairs(A.HorizontalFlip):
    """Mirror; the classes of every (left, right) pair change places in the label map."""

    def __init__(self, pairs: Sequence[tuple[int, int]], p: float) -> None:
        super().__init__(p=p)
        self.pairs = pairs
        self.swap = np.arange(IGNORE_INDEX + 1, dtype=np.uint8)
        for left, right in pairs:
            self.swap[[left, right]] = right, left

    def apply_to_mask(self, mask: Pixels, *args: Any, **params: Any) -> Pixels:
        """Mirror and swap."""
        return self.swap[mask[:, ::-1]]


class IntegerRotation(PairTransform):
    """Turn by a whole number of degrees in [low, high), corners cut off.

    The centre is the authors': the pixel at (width / 2, height / 2), half a pixel beyond the middle of the pixel grid.
    The image is bicubic with black outside, the label nearest with ignored pixels outside.
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
        """Bicubic, black outside."""
        return cv2.warpAffine(img, matrix, img.shape[1::-1], flags=cv2.INTER_CUBIC, borderValue=(0, 0, 0))

    def apply_to_mask(self, mask: Pixels, matrix: NDArray[np.float64], **params: Any) -> Pixels:
        """Nearest, ignored outside."""
        return cv2.warpAffine(mask, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderValue=IGNORE_INDEX)


class PhotometricDistortion(A.ImageOnlyTransform):
    """Brightness, contrast, saturation and hue, each with probability one half.

    A coin puts the contrast before or after the other two. Every step is clipped to 0..255 and truncated to uint8.
    """

    def __init__(self) -> None:
        super().__init__(p=1.0)

    def get_params(self) -> Params:
        """Draw which steps happen, and how strongly; a step that does not happen has its neutral value."""
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
        """Apply the steps that are not neutral."""
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
