"""Published HRNetV2-W48 keys, which are those of timm's `hrnet_w48` (CHECKPOINTS section 4)."""

from __future__ import annotations

from collections.abc import Collection

NAME = "HRNetV2-W48"


def matches(keys: Collection[str]) -> bool:
    """Whether backbone keys are those of a high-resolution network."""
    return "stage2.0.fuse_layers.0.1.0.weight" in keys


def to_timm(key: str) -> str:
    """Equal names."""
    return key
