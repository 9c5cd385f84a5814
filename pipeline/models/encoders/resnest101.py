"""ResNeSt-101 as the authors dilate it (docs/method.md, "Encoders"): timm's `resnest101e` but for two shortcuts.

Where a stage is dilated instead of strided, timm still averages the shortcut over 2x2 pixels. The authors' pool has
kernel and stride 1 there, an identity. Weights fit either way; without this change the maps differ.
"""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import nn

from pipeline.config.schema import EncoderConfig, Section

TIMM_NAME = "resnest101e"


def build(config: EncoderConfig, options: Section) -> nn.Module:
    """smp's universal encoder around `resnest101e`, with shortcuts that do not pool where the stage does not stride."""
    encoder = smp.encoders.get_encoder(
        f"tu-{TIMM_NAME}", depth=config.depth, weights=None, output_stride=config.output_stride or 32
    )
    for name, stage in encoder.model.named_children():
        if name.startswith("layer") and stage[0].downsample is not None:
            pool = stage[0].downsample[0]
            if getattr(pool, "stride", None) in (1, (1, 1)):
                stage[0].downsample[0] = nn.Identity()
    return encoder
