"""ViT-Large/16 as the authors cut it (docs/method.md, "Encoders"): maps after blocks 9, 14, 19, 23, all at stride 16.

No final norm, class token kept through the blocks and then dropped. Images are padded with zeros (the mean colour) to
multiples of 16, right and bottom. The stored grid of positions is resized bilinearly to any other grid (timm: bicubic
with antialiasing).
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.checkpoints.read import StateDict
from pipeline.config.schema import EncoderConfig, Positive, Section
from pipeline.models.bilinear import resize
from pipeline.models.encoders import require_only_stride

TIMM_NAME = "vit_large_patch16_384"
PATCH = 16  # px
BLOCKS = (9, 14, 19, 23)
WIDTH = 1024


class Options(Section):
    """`encoder.options`."""

    grid: Positive = 32  # positions per side of the stored grid: 32 for crops of 512 x 512


class VisionTransformerEncoder(nn.Module):
    """(B, 3, H, W) -> [image, four maps (B, 1024, H/16, W/16)], sizes rounded up."""

    out_channels = (3, *(WIDTH for _ in BLOCKS))

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid
        model = timm.create_model(TIMM_NAME, pretrained=False, img_size=grid * PATCH, num_classes=0, global_pool="")
        model.norm = nn.Identity()  # the head has a norm for each map
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W), normalised, to themselves and the maps after the four blocks."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        patches = self.model.patch_embed.proj(padded)  # (B, 1024, h, w)
        size = patches.shape[2:]
        tokens = torch.cat([self.model.cls_token.expand(len(images), -1, -1), _tokens(patches)], dim=1)
        tokens = tokens + position_embedding(self.model.pos_embed, size)  # (B, 1 + hw, 1024)
        maps = [images]
        for index, block in enumerate(self.model.blocks):
            tokens = block(tokens)
            if index in BLOCKS:
                maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, size).contiguous())  # (B, 1024, h, w)
        return maps


def position_embedding(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1 + g*g, C), class token first, to (1, 1 + h*w, C) for a grid of `size` (h, w)."""
    side = round((embedding.shape[1] - 1) ** 0.5)
    if size == (side, side):
        return embedding
    grid = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # (1, C, g, g)
    return torch.cat([embedding[:, :1], _tokens(resize(grid, size))], dim=1)


def adapt_weights(state: StateDict, encoder: VisionTransformerEncoder) -> StateDict:
    """ImageNet weights for 384 x 384 pixels have a grid of 24 x 24 positions: resized to ours."""
    embedding = state.get("pos_embed")
    if embedding is None or embedding.ndim != 3:
        return state
    return {**state, "pos_embed": position_embedding(embedding, (encoder.grid, encoder.grid))}


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C)."""
    return maps.flatten(2).transpose(1, 2)


def build(config: EncoderConfig, options: Options) -> nn.Module:
    """The encoder at its only stride, 16. Raises PipelineError for another output stride or depth."""
    require_only_stride(config, PATCH)
    return VisionTransformerEncoder(options.grid)
