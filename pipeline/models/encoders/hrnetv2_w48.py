"""HRNetV2-W48 as the authors run it (docs/method.md, "Encoders"): timm's `hrnet_w48` but for the fusion and the stem.

Lower resolutions are brought up bilinearly (timm: nearest), to the exact size of their target for any input size. The
four branches leave as one map of 720 channels at stride 4. `stem_relu: false` leaves out the ReLU after the first norm
of the stem, which all of the authors' published HRNet weights were trained without. Weights fit either way.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from timm.models.hrnet import HighResolutionModule
from torch import Tensor, nn

from pipeline.config.schema import EncoderConfig, Section
from pipeline.models.bilinear import resize
from pipeline.models.encoders import require_only_stride

TIMM_NAME = "hrnet_w48"


class Options(Section):
    """What differs between generations of the authors' toolbox."""

    stem_relu: bool = False


class HighResolutionEncoder(nn.Module):
    """(B, 3, H, W) -> [image, (B, 720, H/4, W/4)], sizes rounded up."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.model = timm.create_model(
            TIMM_NAME, pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
        )
        if not options.stem_relu:
            self.model.act1 = nn.Identity()
        for stage in (self.model.stage2, self.model.stage3, self.model.stage4):
            for index, module in enumerate(stage):
                stage[index] = _BilinearFusionModule(module)
        self.out_channels = [3, sum(branch[-1].bn2.num_features for branch in self.model.stage4[-1].branches)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to themselves and the joined branches, in the order 48, 96, 192, 384 channels."""
        branches = self.model(images)  # four of (B, c, H/4 .. H/32, W/4 .. W/32)
        finest = branches[0]
        return [images, torch.cat([finest, *(resize(maps, finest.shape[2:]) for maps in branches[1:])], dim=1)]


class _BilinearFusionModule(nn.Module):
    """timm's module (parallel branches, then every branch receives all others), fused as above; keys stay the same."""

    def __init__(self, module: HighResolutionModule) -> None:
        super().__init__()
        self.branches, self.fuse_act = module.branches, module.fuse_act
        self.fuse_layers = nn.ModuleList(
            # Convolution and norm alone: the upsampling after them is timm's nearest one.
            nn.ModuleList(layer[:2] if j > i else layer for j, layer in enumerate(row))
            for i, row in enumerate(module.fuse_layers)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches (B, c_i, h_i, w_i), finest first, to as many of the same shapes."""
        maps = [branch(x[i]) for i, branch in enumerate(self.branches)]
        fused = []
        for i, row in enumerate(self.fuse_layers):
            moved = (layer(maps[j]) for j, layer in enumerate(row))
            size = maps[i].shape[2:]
            parts = [_enlarged(part, 2 ** (j - i), size) if j > i else part for j, part in enumerate(moved)]
            fused.append(self.fuse_act(sum(parts[1:], parts[0])))
        return fused


def _enlarged(maps: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """By `factor`, then, where an odd size was halved on the way down, to `size`: two steps, as the authors do."""
    maps = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    return maps if maps.shape[2:] == size else resize(maps, size)


def build(config: EncoderConfig, options: Options) -> nn.Module:
    """The encoder at its only stride, 4. Raises PipelineError for another output stride or depth."""
    require_only_stride(config, 4, " (`segmentor.downsample: true` halves the map before the head)")
    return HighResolutionEncoder(options)
