"""A training step keeps a GPU busy: the host waits for it once. Shown without one, on tensors that only claim a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.model_benchmarks import small_benchmark, trainer_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import Benchmark
from pipeline.models import build_segmentor
from pipeline.training.step import training_step

CLASSES, GPU = 5, "cuda"
DISTRIBUTION = {"kind": "distribution", "momentum": 0.1, "momentum_schedule": "fixed"}


class Waits(TorchDispatchMode):
    """Answers every question to the GPU with 1, and counts them and the copies between it and the host.

    An output whose size depends on values is an error of the fake tensors themselves.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cuda":
            self.count += 1
            return 1
        if func is torch.ops.aten._to_copy.default:
            self.count += args[0].device.type != torch.device(kwargs.get("device") or args[0].device).type
        return func(*args, **kwargs)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How often the host waits in one step. The backward pass is left out, which needs a real device."""

    def counted(config: Benchmark, *, weighted: bool = False) -> int:
        with torch.device("meta"):
            model = build_segmentor(config, CLASSES, pretrained=False).train()
        with FakeTensorMode(allow_non_fake_inputs=True), Waits() as seen:
            model.to_empty(device=GPU)

            def backward(_: Tensor) -> None:
                for parameter in model.parameters():
                    parameter.grad = torch.zeros_like(parameter)

            monkeypatch.setattr(Tensor, "backward", backward)
            class_weights = torch.ones(CLASSES, device=GPU) if weighted else None
            trainer = trainer_of(config, model, device=GPU, class_weights=class_weights)
            part = torch.empty(2, 3, 64, 64, device=GPU), torch.empty(2, 64, 64, dtype=torch.int64, device=GPU)
            seen.count = 0
            training_step(trainer, [part, part], iteration=0, epoch=2)
        return seen.count

    return counted


@pytest.mark.parametrize(
    ("framework", "memory"),
    [("fcn", {}), ("pspnet", {}), ("ocrnet", {}), ("deeplabv3", {}), ("fcn", DISTRIBUTION), ("fcn", None)],
)
def test_the_host_waits_once(framework: str, memory: dict[str, object] | None, waits: Callable[..., int]) -> None:
    config = small_benchmark(framework, memory)
    consistency = 1.0 if memory == {} else 0.0
    assert waits(config.model_copy(update={"loss": config.loss.model_copy(update={"consistency": consistency})})) == 1


def test_class_weights_cost_no_further_wait(waits: Callable[..., int]) -> None:
    assert waits(small_benchmark("fcn", {}), weighted=True) == 1
