"""Encoders of segmentation-models-pytorch, cut and dilated as configured (docs/method.md, "Encoders")."""

from __future__ import annotations

from collections.abc import Mapping

import segmentation_models_pytorch as smp
import timm
import torch
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import nn

from pipeline.config.parse import nearest, parse
from pipeline.config.schema import EncoderConfig, Section
from pipeline.errors import PipelineError, first_line
from pipeline.models.encoder_weights import is_pretrained_tag, load_encoder_weights, pretrained_hint
from pipeline.models.encoders import encoder_names, get_own_encoder

_PROBE_SIZE = 64  # pixels; a multiple of every stride
# What smp and timm raise when an encoder lacks an ability; neither has a dedicated exception.
UNSUPPORTED = (ValueError, TypeError, AssertionError, NotImplementedError, RuntimeError, KeyError)


def build_encoder(config: EncoderConfig, pretrained: bool = True) -> nn.Module:
    """Encoder whose forward maps (B, 3, H, W) to a list of maps, finest first, the image itself (or scale 1) at [0].

    `out_channels` lists the widths of those maps. With `pretrained` the configured weights are loaded, except on the
    meta device, which holds none. Raises PipelineError for an unknown name, an impossible stride, or weights that do
    not fit.

    smp's own ResNets dilate the first block of a stage fully where the authors use half: take `tu-resnet50c`.
    """
    on_meta = torch.get_default_device().type == "meta"
    own, options = get_own_encoder(config.name), encoder_options(config)
    from_hub = own is None and pretrained and not on_meta and is_pretrained_tag(config.weights)
    if own is not None:
        encoder = own.build(config, options)
    else:
        encoder = _create(config, config.weights if from_hub else None)
        _drop_unused_stages(encoder)
    _probe(encoder, config, freeze=own is None and config.depth < EncoderConfig.model_fields["depth"].default)
    if pretrained and not from_hub and config.weights is not None:
        load_encoder_weights(encoder, config, dry=on_meta)
    return encoder


def check_sizes(model: nn.Module, name: str, sizes: Mapping[tuple[int, int], str]) -> None:
    """Raise PipelineError unless `model`, on the meta device and with encoder `name`, reads images of all `sizes`.

    sizes: (H, W) to what has that size. Most transformers of timm read one size, some networks multiples of 32.
    """
    for (height, width), what in sizes.items():
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, height, width))
        except UNSUPPORTED as error:
            raise PipelineError(
                f"encoder.name: with {name} the network cannot read {what} ({height}x{width} pixels: "
                f"{first_line(error)}); use an encoder for any size, such as tu-resnet50c, tu-tf_efficientnet_lite0 or "
                "mit_b0, or sizes that it can read (`augmentation.crop`, `inference`)"
            ) from error
    model.train()


def needs_two_images(model: nn.Module, crop: tuple[int, int]) -> bool:
    """Whether `model`, on the meta device, cannot be trained on one crop: batch norm of a map that is one pixel."""
    try:
        with torch.no_grad(), torch.device("meta"):
            model.train()(torch.zeros(1, 3, *crop))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return True
        raise
    return False


def encoder_options(config: EncoderConfig) -> Section | None:
    """`encoder.options`, typed. Raises PipelineError for an unknown encoder, or options that it does not have."""
    name = config.name
    if own := get_own_encoder(name):
        return parse(getattr(own, "Options", Section), config.options, "encoder.options")
    if config.options:
        raise PipelineError(f"encoder.options: {name} has none; only {', '.join(encoder_names())} may have some")
    timm_name = name.removeprefix("tu-").split(".")[0]  # a timm name may end in `.pretrained_tag`
    known = timm.is_model(timm_name) if name.startswith("tu-") else name in smp.encoders.get_encoder_names()
    if not known:
        near = nearest(
            name, [*encoder_names(), *smp.encoders.get_encoder_names(), *(f"tu-{m}" for m in timm.list_models())]
        )
        hint = f"did you mean `{near}`?" if near else "see the encoder list of segmentation-models-pytorch"
        raise PipelineError(f"encoder.name: {name!r} is unknown; {hint}")
    return None


def _create(config: EncoderConfig, tag: str | None) -> nn.Module:
    stride = config.output_stride or 32
    # timm models carry their tag in the name, so for them smp only asks for yes or no.
    weights = (tag is not None or None) if config.name.startswith("tu-") else tag
    try:
        return smp.encoders.get_encoder(config.name, depth=config.depth, weights=weights, output_stride=stride)
    except OSError as error:  # includes every download error of the model hub
        raise PipelineError(pretrained_hint(config, error)) from error
    except UNSUPPORTED as error:
        if "meta tensors" in str(error):  # a few encoders compute with numbers while they are built
            with torch.device("cpu"):
                return _create(config, tag).to("meta")
        if tag is not None:
            _create(config, None)  # raises if the encoder cannot be built without weights either
            raise PipelineError(pretrained_hint(config, error)) from error
        if stride != 32:
            raise PipelineError(
                f"encoder.output_stride: {config.name} cannot be built at stride {stride} ({first_line(error)}); "
                "use an encoder that can be dilated to 8 or 16, such as tu-resnet50c, tu-resnet18 or "
                "tu-tf_efficientnet_lite0, or leave output_stride null and cut at a finer stride with `depth`"
            ) from error
        raise PipelineError(
            f"encoder.name: {config.name} gives no pyramid of feature maps at depth {config.depth} "
            f"({first_line(error)}); use a convolutional or pyramid encoder such as tu-resnet50c, "
            "tu-tf_efficientnet_lite0 or mit_b0"
        ) from error


def _drop_unused_stages(encoder: nn.Module) -> None:
    """timm's mobile families build and run every stage even when only the first maps are asked for: cut the rest."""
    model = getattr(encoder, "model", None)
    if isinstance(model, EfficientNetFeatures | MobileNetV3Features):
        last = model.feature_info.module_name()[-1]  # `blocks.N`
        model.blocks = model.blocks[: int(last.split(".")[1]) + 1]


def _probe(encoder: nn.Module, config: EncoderConfig, freeze: bool) -> None:
    """Measure the stride, which not every encoder honours; `freeze` parameters that no map depends on (smp's own)."""
    if config.output_stride is None and not freeze:
        return
    training = encoder.training
    with torch.set_grad_enabled(freeze):
        try:
            maps = encoder.eval()(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE))
        except UNSUPPORTED as error:
            raise PipelineError(
                f"encoder.name: {config.name} cannot be cut or dilated: that takes an encoder which reads any size, "
                f"such as tu-resnet50c or tu-tf_efficientnet_lite0, and {_PROBE_SIZE}x{_PROBE_SIZE} pixels give "
                f"{first_line(error)!r}; or leave `depth` and `output_stride` out"
            ) from error
        if freeze:
            torch.stack([m.sum() for m in maps[1:]]).sum().backward()
            for parameter in encoder.parameters():
                parameter.requires_grad_(parameter.grad is not None)
                parameter.grad = None
    encoder.train(training)
    stride = _PROBE_SIZE // maps[-1].shape[-1]
    if config.output_stride not in (None, stride):
        raise PipelineError(
            f"encoder.output_stride: {config.name} with depth {config.depth} ends at stride {stride}, not "
            f"{config.output_stride}; set output_stride to {stride} or null, or change `depth`"
        )
