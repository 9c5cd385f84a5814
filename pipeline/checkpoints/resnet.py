"""Published ResNet-50/101 v1c keys to timm's `resnet50c` / `resnet101c` (CHECKPOINTS section 4)."""

from __future__ import annotations

import re
from collections.abc import Collection

NAME = "ResNet-50/101 v1c"


def matches(keys: Collection[str]) -> bool:
    """Whether backbone keys are those of a ResNet with the deep stem (a ResNeSt would have `conv2.conv`)."""
    return "stem.0.weight" in keys and "layer1.0.conv2.weight" in keys


def to_timm(key: str) -> str:
    """The stem is one sequence up to its last norm, which timm keeps apart as `bn1`; stages have equal names."""
    key = re.sub(r"^stem\.7\.", "bn1.", key)
    return re.sub(r"^stem\.", "conv1.", key)
