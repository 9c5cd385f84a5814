"""A trained network made faster for evaluation: each batch norm folded into the convolution before it, channels last.

In evaluation mode batch norm is a fixed scale and shift, so the convolution can do it: the same function, up to
rounding, in fewer passes over memory. Channels last is the layout that convolution libraries work in, on the CPU and on
the GPU.
"""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.models.encoder import UNSUPPORTED
from pipeline.runtime.device import full_precision

_SMALL = (128, 128)  # multiples of every stride
_TOLERANCE = 1e-3  # relative to the spread of the logits; rounding stays near 1e-5


@torch.no_grad()
@full_precision()  # in TF32 both would be right and differ by more than the tolerance
def fold_batch_norm(model: nn.Module, crop: tuple[int, int] = _SMALL) -> nn.Module:
    """A copy of `model` (its output has `logits`) in evaluation mode that computes the same faster; `model` stays.

    Which batch norm follows which convolution is seen by running a small image, not guessed from names; one as large as
    `crop`, on which it was trained, if the model reads no small one. Raises RuntimeError when the copy disagrees.
    """
    twin = copy.deepcopy(model).eval()
    weight = next(twin.parameters())
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn((1, 3, *_SMALL), generator=generator).to(weight)
    try:
        pairs, before = _followers(twin, probe)
    except UNSUPPORTED:
        probe = torch.randn((1, 3, *crop), generator=generator).to(weight)
        pairs, before = _followers(twin, probe)
    for norm, convolution in pairs.items():
        _replace(twin, convolution, fuse_conv_bn_eval(convolution, norm))
        _replace(twin, norm, nn.Identity())
    twin = twin.to(memory_format=torch.channels_last)
    after = twin(probe.to(memory_format=torch.channels_last)).logits
    error = ((after - before).abs().max() / before.std().clamp(min=1e-6)).item()
    if not error < _TOLERANCE:
        raise RuntimeError(f"folding batch norm changed the logits by {error:.2g} of their spread; evaluate unfolded")
    return twin


def _followers(model: nn.Module, probe: Tensor) -> tuple[dict[nn.Module, nn.Conv2d], Tensor]:
    """Every batch norm whose input is always, and alone, the output of one convolution; and the probe's logits."""
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # by id; the tensor is kept so that no other gets its id
    calls: dict[nn.Module, list[nn.Conv2d | None]] = {}
    uses: dict[nn.Conv2d, int] = {}

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Exact types: a subclass may do more than its name says, such as timm's norm with an activation inside.
        if type(module) is nn.Conv2d:
            made[id(output)] = (output, module)
            uses[module] = uses.get(module, 0) + 1
        elif type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm) and module.track_running_stats:
            calls.setdefault(module, []).append(made.get(id(inputs[0]), (None, None))[1])

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(seen))
        logits = model(probe).logits
    single = {norm: found[0] for norm, found in calls.items() if len(set(found)) == 1 and found[0] is not None}
    sources = list(single.values())
    return {
        norm: convolution
        for norm, convolution in single.items()
        if uses[convolution] == len(calls[norm]) and sources.count(convolution) == 1
    }, logits


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is registered."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
