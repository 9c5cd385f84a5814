"""Label maps in colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_VOID = (225, 227, 231)  # of ignored pixels, light grey


def colourise(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """(H, W) train ids as RGB (H, W, 3); ignored pixels in light grey."""
    table = np.full((256, 3), _VOID, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[labels]
