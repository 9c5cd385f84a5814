"""Published ViT-Large/16 keys to timm's `vit_large_patch16_384` (CHECKPOINTS section 4)."""

from __future__ import annotations

import re
from collections.abc import Collection

NAME = "ViT-Large/16"

_RULES = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.attn\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^layers\.(\d+)\.attn\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
)


def matches(keys: Collection[str]) -> bool:
    """Whether backbone keys are those of a vision transformer."""
    return "layers.0.attn.attn.in_proj_weight" in keys


def to_timm(key: str) -> str:
    """`layers` become `blocks`; query, key and value lie in one matrix in both, in this order."""
    for pattern, replacement in _RULES:
        key, hits = re.subn(pattern, replacement, key)
        if hits:
            break
    return key
