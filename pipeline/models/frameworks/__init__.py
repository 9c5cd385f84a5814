"""Frameworks by module name: how a head gathers context within one image, with or without the memory.

A new framework is one new module here. It defines three names:

    Options        pydantic section: what `segmentor.options` may say
    CONTEXT_INPUT  what the context module's forward takes, see `ContextInput`
    build_context  (HeadShape, Options) -> nn.Module that returns (B, channels, h, w), or None for no context
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from pydantic import BaseModel

from pipeline.config.parse import nearest, parse
from pipeline.config.schema import SegmentorConfig
from pipeline.errors import PipelineError
from pipeline.models.layers import Activation

# "features": the encoder's last map X (B, C_in, h, w).
# "pyramid": all maps of the encoder, finest first, the image itself at [0].
# "objects": pixel representations R (B, C, h, w) and the coarse logits (B, K, h, w) that mark the objects.
ContextInput = Literal["none", "features", "pyramid", "objects"]


@dataclass(frozen=True)
class HeadShape:
    """Widths that a context module is built from."""

    in_channels: int  # C_in, of the encoder's last map
    channels: int  # C, of the head
    attention_channels: int  # T
    activation: Activation
    pyramid_channels: tuple[int, ...]  # of all maps of the encoder, the image at [0]


def framework_names() -> list[str]:
    """Every framework, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get_framework(name: str) -> ModuleType:
    """The module of framework `name`. Raises PipelineError that offers the nearest name."""
    names = framework_names()
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean `{near}`?" if near else f"available: {', '.join(names)}"
        raise PipelineError(f"segmentor.framework: {name!r} is unknown; {hint}")
    return importlib.import_module(f"{__name__}.{name}")


def framework_options(config: SegmentorConfig) -> BaseModel:
    """`segmentor.options`, typed. Raises PipelineError for an unknown framework, or options that it does not have."""
    return parse(get_framework(config.framework).Options, config.options, "segmentor.options")
