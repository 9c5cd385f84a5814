"""The authors' state-dict keys to the keys of `pipeline.models.Segmentor` (CHECKPOINTS sections 3 and 4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.checkpoints import hrnet, resnest, resnet, vit
from pipeline.errors import PipelineError

_BACKBONES = (resnet, resnest, hrnet, vit)  # one module each: NAME, matches(keys), to_timm(key)

_BACKBONE = "backbone_net."

Rules = tuple[tuple[str, str], ...]  # (pattern, replacement); the first pattern that matches is applied

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
# UPerNet: its decoder's CBA block is our pyramid's last fusion, its pyramid pooling lies inside the feature pyramid.
_UPERNET: Rules = (
    (r"^ppm_net\.branches\.", "context.pooling.branches."),
    (r"^ppm_net\.bottleneck\.", "context.pooling.fusion."),
    (r"^lateral_convs\.", "context.laterals."),
    (r"^fpn_convs\.", "context.smoothing."),
    (r"^decoder\.([01])\.", r"context.fusion.\1."),
    (r"^decoder\.4\.", "final_decoder.1."),
)
# ViT has three auxiliary heads of two blocks each, all others have one.
_AUXILIARIES: Rules = ((r"^auxiliary_decoder\.(\d)\.(?=\d+\.)", r"auxiliary.\1."),)
_PROJECTIONS = {"query_project": "query", "key_project": "key", "value_project": "value", "out_project": "output"}


def from_published(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """A published state dict under the keys `expected` of the segmentor that is to load it.

    Values are passed on untouched. Raises PipelineError unless the renamed keys are exactly `expected`: the network
    was then built from another configuration than the file.
    """
    backbone = {key.removeprefix(_BACKBONE): value for key, value in state.items() if key.startswith(_BACKBONE)}
    head = {key: value for key, value in state.items() if not key.startswith(_BACKBONE)}
    renamed_backbone = rename_backbone(backbone)
    if renamed_backbone is None:
        known = ", ".join(module.NAME for module in _BACKBONES)
        raise PipelineError(f"published checkpoint: its backbone is not supported; supported: {known}")
    rules = _head_rules(head)
    renamed = {f"encoder.model.{key}": value for key, value in renamed_backbone.items()}
    renamed |= {_rename_head(key, rules): value for key, value in head.items()}
    _require_equal(set(renamed), set(expected))
    return renamed


def rename_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Weights of one of the authors' backbones under timm's keys, or None when the keys are none of theirs.

    An empty `state` stays empty: a checkpoint may hold a head alone.
    """
    for backbone in _BACKBONES:
        if backbone.matches(state):
            return {backbone.to_timm(key): value for key, value in state.items()}
    return None if state else {}


def backbone_name(state: Mapping[str, Tensor]) -> str | None:
    """What the backbone of a published state dict is, with the depth of its stages; None when it is none of theirs."""
    keys = {key.removeprefix(_BACKBONE) for key in state if key.startswith(_BACKBONE)}
    for backbone in _BACKBONES:
        if backbone.matches(keys):
            blocks = [len({key.split(".")[1] for key in keys if key.startswith(f"layer{i}.")}) for i in range(1, 5)]
            return f"{backbone.NAME} of {'-'.join(map(str, blocks))} blocks" if all(blocks) else backbone.NAME
    return None


def _head_rules(state: Mapping[str, Tensor]) -> Rules:
    """Rules that tell apart what is named or numbered alike in different heads; their first match counts."""
    special: Rules = _AUXILIARIES if any(key.startswith("auxiliary_decoder.2.") for key in state) else ()
    if any(key.startswith("fpn_convs.") for key in state):
        special += _UPERNET
    elif "decoder.4.running_mean" in state:  # the decoder of a plain model is numbered by its length
        special += _FCN_DECODER
    else:
        special += _CLASSIFIER_DECODER
    return (*special, *_CONTEXT, *_SHARED, *_MEMORY)


def _rename_head(key: str, rules: Rules) -> str:
    key = re.sub(
        r"\.(query|key|value|out)_project\.", lambda found: f".{_PROJECTIONS[found[0].strip('.')]}_projection.", key
    )
    for pattern, replacement in rules:
        renamed, hits = re.subn(pattern, replacement, key)
        if hits:
            return renamed
    return key


def _require_equal(found: set[str], expected: set[str]) -> None:
    problems = []
    for name, keys in (("missing", expected - found), ("unexpected", found - expected)):
        if keys:
            shown = ", ".join(sorted(keys)[:4]) + (", ..." if len(keys) > 4 else "")
            problems.append(f"{len(keys)} {name} ({shown})")
    if problems:
        raise PipelineError(
            f"published checkpoint does not fit this network: {'; '.join(problems)}; "
            "compare framework, encoder, memory and auxiliary head of the benchmark with the file"
        )
