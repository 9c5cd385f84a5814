"""The authors' backbones: how to recognise their keys, and the timm keys they become (docs/published-rows.md, "Key
names")."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

Rules = tuple[tuple[str, str], ...]  # (pattern, replacement); only the first pattern that matches is applied

_DEEP_STEM: Rules = (  # one sequence up to its last norm, which timm keeps apart; the stages have equal names
    (r"^stem\.7\.", "bn1."),
    (r"^stem\.", "conv1."),
)
_TRANSFORMER: Rules = (  # query, key and value share one matrix in both, in this order
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.attn\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"^layers\.(\d+)\.attn\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
)


@dataclass(frozen=True)
class Backbone:
    """name: for messages. signature: keys that, together, only this backbone has. rules: from its keys to timm's."""

    name: str
    signature: frozenset[str]
    rules: Rules = ()


BACKBONES = (
    Backbone("ResNet-50/101 v1c", frozenset({"stem.0.weight", "layer1.0.conv2.weight"}), _DEEP_STEM),
    Backbone("ResNeSt-101", frozenset({"stem.0.weight", "layer1.0.conv2.conv.weight"}), _DEEP_STEM),
    Backbone("HRNetV2-W48", frozenset({"stage2.0.fuse_layers.0.1.0.weight"})),  # the same keys as in timm
    Backbone("ViT-Large/16", frozenset({"layers.0.attn.attn.in_proj_weight"}), _TRANSFORMER),
)


def find_backbone(keys: Collection[str]) -> Backbone | None:
    """The authors' backbone that has `keys` (without the prefix `backbone_net.`), or None."""
    return next((backbone for backbone in BACKBONES if all(key in keys for key in backbone.signature)), None)


def rename(key: str, rules: Rules) -> str:
    """`key` after the first rule that matches, or unchanged."""
    for pattern, replacement in rules:
        renamed, hits = re.subn(pattern, replacement, key)
        if hits:
            return renamed
    return key
