"""Raw label images to train ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec
from pipeline.errors import PipelineError


def train_ids(spec: DatasetSpec, path: Path) -> NDArray[np.uint8]:
    """The raw label map `path` as train ids, uint8 (H, W), 255 = ignore.

    Raises PipelineError when it is no single-channel image or holds a value that the dataset does not define.
    """
    try:
        with Image.open(path) as stream:  # PIL keeps palette indices, which OpenCV would turn into colours
            raw = np.asarray(stream)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:  # PIL says SyntaxError for a broken PNG
        raise PipelineError(f"{path}: cannot be decoded as a label image ({error})") from error
    if raw.ndim != 2 or raw.dtype.kind not in "iub":
        raise PipelineError(f"{path}: expected one integer channel, found shape {raw.shape} of {raw.dtype}")
    known = spec.raw_values()
    values = np.unique(raw)
    stray = [int(value) for value in values if int(value) not in known]
    if stray:
        raise PipelineError(f"{path}: label values {stray} are not among the dataset's {_ranges(sorted(known))}")
    table = np.full(max(known) + 1, IGNORE_INDEX, np.uint8)
    table[list(known.keys())] = list(known.values())
    return table[raw.astype(np.intp)]  # (H, W)


def _ranges(values: Sequence[int]) -> str:
    """0, 1, 2, 3, 255 -> `0..3, 255`."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)
