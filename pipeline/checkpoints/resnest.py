"""Published ResNeSt-101 keys to timm's `resnest101e` (CHECKPOINTS section 4)."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.checkpoints.resnet import to_timm

__all__ = ["NAME", "matches", "to_timm"]  # the stem is renamed as in the ResNets, the stages have equal names

NAME = "ResNeSt-101"


def matches(keys: Collection[str]) -> bool:
    """Whether backbone keys are those of a network of split-attention blocks behind the deep stem."""
    return "stem.0.weight" in keys and "layer1.0.conv2.conv.weight" in keys
