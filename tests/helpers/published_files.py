"""Checkpoints in the authors' format, made of recipe weights: the inverse of `pipeline.checkpoints.key_names`."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from helpers.golden_recipe import weight
from pipeline.config import Benchmark
from pipeline.datasets import get_dataset
from pipeline.models import build_segmentor

# Our keys of DeepLabV3 with memory on a ResNet, and the published ones.
_TO_PUBLISHED = (
    (r"^encoder\.model\.conv1\.", "backbone_net.stem."),
    (r"^encoder\.model\.bn1\.", "backbone_net.stem.7."),
    (r"^encoder\.model\.", "backbone_net."),
    (r"^context\.branches\.", "context_within_image_module.parallel_branches."),
    (r"^context\.global_branch\.", "context_within_image_module.global_branch."),
    (r"^context\.fusion\.", "context_within_image_module.bottleneck."),
    (r"^pixel_representation\.", "bottleneck."),
    (r"^auxiliary\.0\.", "auxiliary_decoder."),
    (r"^memory\.memory_attention\.0\.", "memory_module.self_attention."),
    (r"^memory\.context_attention\.", "memory_module.self_attention_ms."),
    (r"^memory\.memory_fusion\.", "memory_module.bottleneck."),
    (r"^memory\.context_fusion\.", "memory_module.bottleneck_ms."),
    (r"^memory\.memory$", "memory_module.memory"),
    (r"^coarse_decoder\.", "decoder_stage1."),
    (r"^final_decoder\.", "decoder_stage2."),
)
# What MCIBI++ calls otherwise.
_OF_DISTRIBUTION = (
    *(
        (rf"^{ours}\.{index}\.", f"decoder_{theirs}.{layer}.")
        for ours, theirs in (("coarse_decoder", "pr"), ("context_decoder", "cwi"), ("final_decoder", "cls"))
        for index, layer in ((0, "conv1"), (1, "bn1"), (4, "conv2"))
    ),
    (r"^memory\.context_attention\.", "self_attention."),
    (r"^memory\.halving\.", "memory_module.downsample_before_sa."),
    (r"^pyramid\.laterals\.", "lateral_convs."),
    (r"^pyramid\.smoothing\.", "fpn_convs."),
)


def published_state(benchmark: Benchmark) -> dict[str, Tensor]:
    """Recipe weights for every tensor of the benchmark's network, under the authors' keys."""
    with torch.device("meta"):
        model = build_segmentor(benchmark, len(get_dataset(benchmark.dataset.name).classes), pretrained=False)
    names = {published_key(key, benchmark): value for key, value in model.state_dict().items()}
    return {name: weight(name, tuple(value.shape)) for name, value in names.items()}


def published_key(key: str, benchmark: Benchmark) -> str:
    """The authors' name of one of our keys."""
    distribution = benchmark.memory is not None and benchmark.memory.kind == "distribution"
    for pattern, replacement in (*(_OF_DISTRIBUTION if distribution else ()), *_TO_PUBLISHED):
        key, hits = re.subn(pattern, replacement, key)
        if hits:
            break
    return re.sub(
        r"\.(query|key|value|output)_projection\.", lambda found: f".{found[1].replace('output', 'out')}_project.", key
    )


def write_checkpoint(path: Path, state: dict[str, Tensor]) -> Path:
    """`state` as the authors' training saves it, with the counters and the optimiser beside the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"cur_epoch": 130, "cur_iter": 164190, "optimizer": optimizer, "model": state}, path)
    return path


def write_imagenet(path: Path, benchmark: Benchmark) -> Path:
    """Recipe weights of the benchmark's backbone with a classifier, as OpenMMLab saves them."""
    prefix = "backbone_net."
    backbone = {
        key.removeprefix(prefix): value for key, value in published_state(benchmark).items() if key.startswith(prefix)
    }
    backbone |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"meta": {}, "state_dict": backbone}, path)
    return path
