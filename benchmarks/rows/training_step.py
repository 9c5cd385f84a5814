"""One whole training step: forward, memory update, losses, backward, optimiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Case, all_close
from benchmarks.networks import CLASSES, ade_benchmark, ade_twins, batch
from benchmarks.toolbox import their_optimizer, their_step
from pipeline.config.schema import Benchmark
from pipeline.training.optimizer import build_optimizer
from pipeline.training.step import Trainer, training_step

_FROM_EPOCH = 2  # the consistency loss takes part
# A random network in float32: rounding grows on the way back (in float64 all is equal: tests/system/test_toolbox.py).
_TOLERANCES = {"gradient norm of the encoder": 5e-2, "gradient norm of the decoder": 1e-2}
_ITERATIONS = 1_000_000  # the learning rate hardly moves


def cases(device: torch.device) -> dict[str, Callable[[], Case]]:
    """One line: two crops of 512x512, on the CPU of 256x256."""
    return {"training step": lambda: step_case(device, 512 if device.type == "cuda" else 256)}


def step_case(device: torch.device, size: int, rounds: int = 2) -> Case:
    """Both sides start from equal weights and take their steps independently; the first steps are compared."""
    benchmark, (images, labels) = ade_benchmark(), batch(size, 2, device)
    theirs, model = ade_twins(device)
    trainer = make_trainer(model.to(memory_format=torch.channels_last), device, "float32")
    optimizer = their_optimizer(theirs.train(), benchmark)

    def ours() -> dict[str, Tensor]:
        values = training_step(trainer, [(images, labels)], 0, _FROM_EPOCH)
        return {"loss": values["loss"].cpu(), **observed(model.encoder, model.final_decoder, model.memory.memory)}

    def reference() -> dict[str, Tensor]:
        losses = their_step(theirs, optimizer, images, labels, benchmark.optimizer.lr, _FROM_EPOCH)
        found = observed(theirs.backbone_net, theirs.decoder_stage2, theirs.memory_module.memory)
        return {"loss": torch.tensor(losses["loss_total"]), **found}

    return Case(
        f"ResNet-50 at stride 8, K={CLASSES}, 2 crops of {size}x{size}, float32",
        ours,
        reference,
        all_close(_TOLERANCES, otherwise=1e-3),
        rounds=rounds,
        unit="step",
    )


def make_trainer(model: nn.Module, device: torch.device, precision: str, benchmark: Benchmark | None = None) -> Trainer:
    """The trainer of one process; benchmark: whose losses and optimiser it has, None: that of the rows."""
    benchmark = benchmark or ade_benchmark()
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    optimizer = build_optimizer(model, benchmark.optimizer)
    return Trainer(benchmark, model.train(), model, optimizer, scaler, device, precision, _ITERATIONS)


def observed(encoder: nn.Module, decoder: nn.Module, memory: Tensor) -> dict[str, Tensor]:
    """The norms of the gradients in the first and the last layers, and the memory, after a step."""
    gradients = {
        "gradient norm of the encoder": [p.grad for p in encoder.parameters() if p.grad is not None],
        "gradient norm of the decoder": [p.grad for p in decoder.parameters()],
    }
    norms = {name: nn.utils.get_total_norm(values).cpu() for name, values in gradients.items()}
    return {**norms, "memory": memory.detach().cpu().clone()}
