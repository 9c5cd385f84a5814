"""What a published checkpoint is, as far as its weights tell: to say which row a file belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.checkpoints.published import backbone_name

_MEMORY = "memory_module.memory"
_CLASSIFIER = re.compile(r"^(?:decoder|decoder_stage2)\.(\d+)\.bias$")  # norms are left out by their number of axes
_AUXILIARY = re.compile(r"^auxiliary_decoder\.(?:(\d)\.)?\d+\.")


@dataclass(frozen=True)
class Contents:
    """num_classes: None when the file has no decoder; slots: memory vectors per class, 0 without a memory."""

    num_classes: int | None
    backbone: str | None
    auxiliary_heads: int
    slots: int

    def __str__(self) -> str:
        heads = f"{self.auxiliary_heads} auxiliary head{'' if self.auxiliary_heads == 1 else 's'}"
        memory = f"a memory of {self.slots} vector{'' if self.slots == 1 else 's'} per class" if self.slots else None
        return (
            f"{self.num_classes or 'an unknown number of'} classes, {self.backbone or 'no backbone of the authors'}, "
            f"{heads} and {memory or 'no memory'}"
        )


def contents(state: Mapping[str, Tensor]) -> Contents:
    """Describe a state dict under the authors' keys."""
    memory = state.get(_MEMORY)
    return Contents(
        num_classes=_num_classes(state),
        backbone=backbone_name(state),
        auxiliary_heads=len({found[1] for key in state if (found := _AUXILIARY.match(key))}),
        slots=memory.shape[1] if memory is not None and memory.ndim == 3 else 0,
    )


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Outputs of the last decoder's convolution, which is the only one there with a bias."""
    for key in state:
        weight = state.get(f"{key.removesuffix('.bias')}.weight")
        if _CLASSIFIER.match(key) and weight is not None and weight.ndim == 4:
            return weight.shape[0]
    return None
