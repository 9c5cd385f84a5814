"""Checkpoints under the authors' keys: what a file contains, and its weights under the keys of our `Segmentor`.

The key names are listed in docs/published-rows.md, "Key names".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pipeline.errors import PipelineError

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
_WINDOWS: Rules = (  # the authors downsample at the end of a stage, timm at the beginning of the next
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    *((rf"^stages\.{stage}\.downsample\.", f"layers.{stage + 1}.downsample.") for stage in range(3)),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.", r"layers.\1.blocks.\2.attn."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", r"layers.\1.blocks.\2.mlp.fc1."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.", r"layers.\1.blocks.\2.mlp.fc2."),
    (r"^stages\.", "layers."),
)


@dataclass(frozen=True)
class Backbone:
    """name: for messages. signature: keys that, together, only this backbone has. rules: from its keys to timm's.

    merged: in the keys of tensors whose last axis holds 2x2 patches channel by channel, which timm has patch by patch.
    computed: how keys end that timm computes itself.
    """

    name: str
    signature: frozenset[str]
    rules: Rules = ()
    merged: str | None = None
    computed: tuple[str, ...] = ()


BACKBONES = (
    Backbone("ResNet-50/101 v1c", frozenset({"stem.0.weight", "layer1.0.conv2.weight"}), _DEEP_STEM),
    Backbone("ResNeSt-101", frozenset({"stem.0.weight", "layer1.0.conv2.conv.weight"}), _DEEP_STEM),
    Backbone("HRNetV2-W48", frozenset({"stage2.0.fuse_layers.0.1.0.weight"})),  # the same keys as in timm
    Backbone("ViT-Large/16", frozenset({"layers.0.attn.attn.in_proj_weight"}), _TRANSFORMER),
    Backbone(
        "Swin-L",
        frozenset({"stages.0.blocks.0.attn.w_msa.qkv.weight"}),
        _WINDOWS,
        merged=".downsample.",
        computed=("relative_position_index",),
    ),
)

_BACKBONE = "backbone_net."

_CONTEXT: Rules = (
    (r"^(?:context_within_image_module|aspp_net)\.parallel_branches\.", "context.branches."),
    (r"^(?:context_within_image_module|aspp_net)\.global_branch\.", "context.global_branch."),
    (r"^(?:context_within_image_module|ppm_net)\.branches\.", "context.branches."),
    (r"^(?:context_within_image_module|aspp_net|ppm_net)\.bottleneck\.", "context.fusion."),
    (r"^object_context_block\.bottleneck\.", "context.fusion."),
    (r"^object_context_block\.", "context.attention."),
)
_SHARED: Rules = (
    (r"^bottleneck\.", "pixel_representation."),
    (r"^auxiliary_decoder\.", "auxiliary.0."),
    (r"^norm_layers\.", "feature_norms."),
    (r"^downsample_backbone\.", "downsample."),
)
_MEMORY: Rules = (
    (r"^memory_module\.memory$", "memory.memory"),
    (r"^memory_module\.self_attention\.", "memory.memory_attention.0."),
    (r"^memory_module\.self_attentions\.", "memory.memory_attention."),
    (r"^memory_module\.fuse_memory_conv\.", "memory.slot_fusion."),
    (r"^memory_module\.bottleneck\.", "memory.memory_fusion."),
    (r"^memory_module\.self_attention_ms\.", "memory.context_attention."),
    (r"^memory_module\.bottleneck_ms\.", "memory.context_fusion."),
    (r"^decoder_stage1\.", "coarse_decoder."),
    (r"^decoder_stage2\.", "final_decoder."),
)
# Plain FCN: one sequence of two CBA blocks, dropout and classifier; its first block is our pixel representation.
_FCN_DECODER: Rules = (
    (r"^decoder\.([01])\.", r"pixel_representation.\1."),
    (r"^decoder\.3\.", "final_decoder.0."),
    (r"^decoder\.4\.", "final_decoder.1."),
    (r"^decoder\.7\.", "final_decoder.4."),
)
_CLASSIFIER_DECODER: Rules = ((r"^decoder\.1\.", "final_decoder.1."),)
# UPerNet: its decoder's CBA block is our pyramid's last fusion, its pyramid pooling is inside the feature pyramid.
_UPERNET: Rules = (
    (r"^ppm_net\.branches\.", "context.pooling.branches."),
    (r"^ppm_net\.bottleneck\.", "context.pooling.fusion."),
    (r"^lateral_convs\.", "context.laterals."),
    (r"^fpn_convs\.", "context.smoothing."),
    (r"^decoder\.([01])\.", r"context.fusion.\1."),
    (r"^decoder\.4\.", "final_decoder.1."),
)
# MCIBI++: named layers in every decoder, a pyramid that is no context module, and an attention of the context to what
# the memory returned.
_DISTRIBUTION: Rules = (
    *(
        (rf"^decoder_{theirs}\.{layer}\.", f"{ours}.{index}.")
        for theirs, ours in (("pr", "coarse_decoder"), ("cwi", "context_decoder"), ("cls", "final_decoder"))
        for layer, index in (("conv1", 0), ("bn1", 1), ("conv2", 4))
    ),
    (r"^lateral_convs\.", "pyramid.laterals."),
    (r"^fpn_convs\.", "pyramid.smoothing."),
    (r"^self_attention\.", "memory.context_attention."),
    (r"^memory_module\.downsample_before_sa\.", "memory.halving."),
)
# ViT has three auxiliary heads of two blocks each, all others have one.
_AUXILIARIES: Rules = ((r"^auxiliary_decoder\.(\d)\.(?=\d+\.)", r"auxiliary.\1."),)
_CLASSIFIER_KEY = re.compile(r"^(?:(?:decoder|decoder_stage2)\.\d+|decoder_cls\.conv2)\.bias$")
_AUXILIARY_KEY = re.compile(r"^auxiliary_decoder\.(?:(\d)\.)?\d+\.")


def from_published(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """A published state dict under the keys `expected` by the segmentor that will load it.

    Values are not changed, but for the order in which Swin's patches are merged.

    Raises PipelineError unless the renamed keys are exactly `expected`: the network was then built from another
    configuration than the file.
    """
    backbone = rename_backbone(_backbone(state))
    if backbone is None:
        known = ", ".join(backbone.name for backbone in BACKBONES)
        raise PipelineError(f"published checkpoint: its backbone is not supported; supported: {known}")
    head = {key: value for key, value in state.items() if not key.startswith(_BACKBONE)}
    rules = _head_rules(head)
    renamed = {f"encoder.model.{key}": value for key, value in backbone.items()}
    for key, value in head.items():
        projections = key.replace(".out_project.", ".output_project.").replace("_project.", "_projection.")
        renamed[rename(projections, rules)] = value
    problems = []
    for name, keys in (("missing", set(expected) - set(renamed)), ("unexpected", set(renamed) - set(expected))):
        if keys:
            shown = ", ".join(sorted(keys)[:4]) + (", ..." if len(keys) > 4 else "")
            problems.append(f"{len(keys)} {name} ({shown})")
    if problems:
        raise PipelineError(
            f"published checkpoint does not fit this network: {'; '.join(problems)}; "
            "compare framework, encoder, memory and auxiliary head of the benchmark with the file"
        )
    return renamed


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


def rename_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights of one of the authors' backbones under timm's keys; None for any other backbone.

    An empty `state` stays empty: a checkpoint may hold a head alone.
    """
    backbone = find_backbone(state)
    if backbone is None:
        return None if state else {}
    return {
        rename(key, backbone.rules): _by_patch(value) if backbone.merged and backbone.merged in key else value
        for key, value in state.items()
        if not (backbone.computed and key.endswith(backbone.computed))
    }


def _by_patch(merged: Tensor) -> Tensor:
    """(..., C * 4), the patches (0, 0), (0, 1), (1, 0), (1, 1) of each channel, to (..., 4 * C), columns first."""
    return merged.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)


@dataclass(frozen=True)
class Contents:
    """What the weights of a checkpoint are for.

    num_classes: None when the file has no decoder. memory: its kind. slots: vectors per class of a feature memory.
    """

    num_classes: int | None
    backbone: str | None
    auxiliary_heads: int
    memory: Literal["features", "distribution"] | None
    slots: int

    def __str__(self) -> str:
        heads = f"{self.auxiliary_heads} auxiliary head{'' if self.auxiliary_heads == 1 else 's'}"
        memory = {
            "features": f"a memory of {self.slots} vector{'' if self.slots == 1 else 's'} per class",
            "distribution": "a memory of mean and deviation per class",
        }.get(self.memory or "")
        return (
            f"{self.num_classes or 'an unknown number of'} classes, {self.backbone or 'no backbone of the authors'}, "
            f"{heads} and {memory or 'no memory'}"
        )


def contents(state: Mapping[str, Tensor]) -> Contents:
    """Describe a state dict under the authors' keys, to find the row that it belongs to."""
    memory = state.get("memory_module.memory")
    axes = 0 if memory is None else memory.ndim
    return Contents(
        num_classes=_num_classes(state),
        backbone=_backbone_name(state),
        auxiliary_heads=len({found[1] for key in state if (found := _AUXILIARY_KEY.match(key))}),
        memory={3: "features", 2: "distribution"}.get(axes),
        slots=memory.shape[1] if memory is not None and axes == 3 else 0,
    )


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Outputs of the last decoder's convolution, the only one there with a bias (norms have no 4-axis weight)."""
    for key in state:
        weight = state.get(f"{key.removesuffix('.bias')}.weight")
        if _CLASSIFIER_KEY.match(key) and weight is not None and weight.ndim == 4:
            return weight.shape[0]
    return None


def _backbone_name(state: Mapping[str, Tensor]) -> str | None:
    """With the number of blocks per stage where stages are called `layer1` to `layer4`."""
    keys = _backbone(state)
    backbone = find_backbone(keys)
    if backbone is None:
        return None
    blocks = [len({key.split(".")[1] for key in keys if key.startswith(f"layer{i}.")}) for i in range(1, 5)]
    return f"{backbone.name} of {'-'.join(map(str, blocks))} blocks" if all(blocks) else backbone.name


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_BACKBONE): value for key, value in state.items() if key.startswith(_BACKBONE)}


def _head_rules(state: Mapping[str, Tensor]) -> Rules:
    """Rules for the head in `state`: different heads use the same names and numbers for different layers."""
    special: Rules = _AUXILIARIES if any(key.startswith("auxiliary_decoder.2.") for key in state) else ()
    if any(key.startswith("decoder_cls.") for key in state):
        special += _DISTRIBUTION
    elif any(key.startswith("fpn_convs.") for key in state):
        special += _UPERNET
    elif "decoder.4.running_mean" in state:  # the decoder of a plain model is numbered by its length
        special += _FCN_DECODER
    else:
        special += _CLASSIFIER_DECODER
    return (*special, *_CONTEXT, *_SHARED, *_MEMORY)
