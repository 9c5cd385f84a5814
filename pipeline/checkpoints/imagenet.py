"""The ImageNet weights that the published rows start their training from.

`encoder.weights: imagenet:NAME` names one of them. Eight hex digits in a file's name begin its sha256.
"""

from __future__ import annotations

from pipeline.config.parse import suggestion
from pipeline.errors import PipelineError

PREFIX = "imagenet:"

_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/"
_MICROSOFT = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
_AUTHORS = "https://github.com/SegmentationBLWX/modelstore/releases/download/ssseg_pretrained/"  # copies of them all

IMAGENET_FILES = {  # by NAME: where it is from, and the file
    "resnet50_v1c": (_OPENMMLAB, "resnet50_v1c-2cccc1ad.pth"),
    "resnet101_v1c": (_OPENMMLAB, "resnet101_v1c-e67eebb6.pth"),
    "resnest101_d2": (_OPENMMLAB, "resnest101_d2-f3b931b2.pth"),
    "hrnetv2_w48": (_OPENMMLAB, "hrnetv2_w48-d2186c55.pth"),
    "swin_large": (_MICROSOFT, "swin_large_patch4_window12_384_22k.pth"),  # MCIBI++; ImageNet-22k at 384 px
    # Google's weights of 2020, ImageNet-21k then 1k at 384 px; timm's present default of this model is another training
    "vit_large_p16_384": (_TIMM, "jx_vit_large_p16_384-b3be5167.pth"),
}


def imagenet_urls(name: str) -> tuple[str, ...]:
    """Addresses of the weights called `name`, tried in this order. Raises PipelineError for an unknown name."""
    if name not in IMAGENET_FILES:
        raise PipelineError(f"encoder.weights: {PREFIX}{name} is unknown; {suggestion(name, IMAGENET_FILES)}")
    address, file = IMAGENET_FILES[name]
    return (address + file, _AUTHORS + file)
