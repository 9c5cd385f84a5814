"""Encoders that smp and timm do not have in the authors' form, by name (docs/method.md, "Encoders").

A new one is one new module here, called as `encoder.name` with `-` for `_`. It defines, the first two if needed:

    Options        pydantic section: the keys of `encoder.options`
    adapt_weights  (state dict under timm's keys, encoder) -> the state dict, fitted to this encoder
    TIMM_NAME      timm's complete classifier of this family: what else a weight file may hold
    build          (EncoderConfig, options) -> nn.Module with smp's encoder interface: `out_channels`, the widths of its
                   maps with the image at [0], and a forward from (B, 3, H, W) to those maps, the image itself at [0];
                   timm's modules are under `model.`, as in smp's `tu-` encoders
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from pipeline.config.schema import EncoderConfig
from pipeline.errors import PipelineError


def encoder_names() -> list[str]:
    """Names of the encoders here, as written in `encoder.name`, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get_own_encoder(name: str) -> ModuleType | None:
    """The module of encoder `name`, or None when it is none of these."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}") if name in encoder_names() else None


def require_only_stride(config: EncoderConfig, stride: int, hint: str = "") -> None:
    """For an encoder that knows one stride and no depth. Raises PipelineError, ending with `hint`, for another."""
    if config.output_stride not in (None, stride) or config.depth != EncoderConfig.model_fields["depth"].default:
        raise PipelineError(
            f"encoder: {config.name} always ends at stride {stride}; leave output_stride and depth unset{hint}"
        )
