"""Swin-L (patch 4, window 12) as the authors run it (docs/method.md, "Encoders"): maps at strides 4, 8, 16 and 32.

Each of the four maps has its own norm. Windows are 12 x 12 in every stage and for every image: maps are padded
with zeros, right and bottom, before they are shifted (timm shifts first), and the mask follows the padded size.
"""

from __future__ import annotations

import re

import timm
import torch.nn.functional as F
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    WindowAttention,
    get_relative_position_index,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from pipeline.checkpoints.read import StateDict
from pipeline.config.schema import EncoderConfig, Fraction, Section
from pipeline.models.encoders import require_only_stride

TIMM_NAME = "swin_large_patch4_window12_384"
PATCH = 4  # px


class Options(Section):
    """`encoder.options`."""

    drop_path: Fraction = 0.3  # of the last block; rises linearly from 0


class SwinEncoder(nn.Module):
    """(B, 3, H, W) -> [image, maps (B, 192, H/4, W/4) to (B, 1536, H/32, W/32)], sizes rounded up."""

    def __init__(self, drop_path: float, timm_name: str = TIMM_NAME) -> None:
        super().__init__()
        self.model = timm.create_model(
            timm_name,
            pretrained=False,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            always_partition=True,
            drop_path_rate=drop_path,
        )
        self.model.norm = nn.Identity()  # in its place one for each map
        widths = [stage["num_chs"] for stage in self.model.feature_info]
        for index, width in enumerate(widths):
            self.model.add_module(f"norm{index}", nn.LayerNorm(width))
        self.out_channels = (3, *widths)
        self.register_load_state_dict_post_hook(_give_positions)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W), normalised, to themselves and the maps of the four stages."""
        height, width = images.shape[2:]
        tokens = self.model.patch_embed(F.pad(images, (0, -width % PATCH, 0, -height % PATCH)))  # (B, h, w, 192)
        maps = [images]
        for index, stage in enumerate(self.model.layers):
            tokens = stage.downsample(tokens)  # (B, h, w, C)
            for block in stage.blocks:
                tokens = tokens + block.drop_path1(_attended(block, block.norm1(tokens)))
                tokens = tokens + block.drop_path2(block.mlp(block.norm2(tokens)))
            norm = self.model.get_submodule(f"norm{index}")
            maps.append(norm(tokens).movedim(-1, 1).contiguous())  # (B, C, h, w)
        return maps


def _attended(block: SwinTransformerBlock, tokens: Tensor) -> Tensor:
    """Attention within windows, tokens (B, h, w, C): pad, shift, attend under a mask, and back."""
    (height, width), (side, _) = tokens.shape[1:3], block.window_size
    padded = F.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))  # (B, h', w', C)
    shift = block.shift_size
    shifted = padded.roll((-shift[0], -shift[1]), dims=(1, 2))
    windows = window_partition(shifted, block.window_size).flatten(1, 2)  # (B * windows, side * side, C)
    windows = block.attn(windows, mask=block.get_attn_mask(padded)).unflatten(1, (side, side))
    merged = window_reverse(windows, block.window_size, *padded.shape[1:3])  # (B, h', w', C)
    return merged.roll(shift, dims=(1, 2))[:, :height, :width]


def _give_positions(encoder: SwinEncoder, _: object) -> None:
    """After weights were loaded into an encoder that was built without content: what is in no file."""
    for module in encoder.modules():
        if isinstance(module, WindowAttention) and module.relative_position_index.is_meta:
            if module.relative_position_bias_table.is_meta:
                return
            module.relative_position_index = get_relative_position_index(*module.window_size)


def adapt_weights(state: StateDict, encoder: SwinEncoder) -> StateDict:
    """Microsoft's ImageNet weights: without buffers, downsampling in the next stage, and fresh norms of the maps."""
    renamed = {
        re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", key): value
        for key, value in state.items()
        if not key.endswith(("relative_position_index", "attn_mask"))
    }
    renamed = {key.replace("head.", "head.fc."): value for key, value in renamed.items()}
    fresh = {key: value for key, value in encoder.model.state_dict().items() if re.match(r"norm\d\.", key)}
    return renamed | fresh


def build(config: EncoderConfig, options: Options) -> nn.Module:
    """The encoder at its only stride, 32. Raises PipelineError for another output stride or depth."""
    require_only_stride(config, 32)
    return SwinEncoder(options.drop_path)
