"""The training step in float32 and bfloat16, channels last, compiled; beside it what the hardware could do at best.

The floors are from below: the arithmetic of convolutions and matrix products at the rate of one large matrix product on
this device, and every saved activation written and read once, every parameter seven times, at the rate of a copy.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import extra_memory, timed
from benchmarks.networks import CLASSES, ade_benchmark, ade_network, ade_twins, batch
from benchmarks.rows.training_step import make_trainer
from benchmarks.toolbox import their_optimizer, their_step
from pipeline.runtime.device import autocast, set_kernels
from pipeline.training.step import compiled, training_step

_PARAMETER_PASSES = 7  # forward, backward, gradient out and in, momentum in and out, new value
_VARIANTS = {  # precision, channels last, compiled
    "float32": ("float32", False, False),
    "float32, channels last": ("float32", True, False),
    "float32, channels last, compiled": ("float32", True, True),
    "tf32, channels last": ("tf32", True, False),
    "bfloat16": ("bfloat16", False, False),
    "bfloat16, channels last": ("bfloat16", True, False),
    "bfloat16, channels last, compiled": ("bfloat16", True, True),
}


def measure(device: torch.device) -> dict[str, object]:
    """Seconds, extra memory, floors, first loss and graphs per variant; `faster` is against the float32 reference.

    On the CPU everything is small, to show that the code runs there; its numbers are meaningless.
    """
    on_gpu = device.type == "cuda"
    size, rounds = (512, 10) if on_gpu else (64, 1)
    images, labels = batch(size, 2, device)
    baseline = _reference(device, images, labels, rounds)
    steps = {name: _variant(name, device, images, labels, rounds, baseline) for name in _VARIANTS}
    return {"setting": f"K={CLASSES}, 2 crops of {size}x{size}", "reference_s": baseline, "steps": steps}


def _reference(device: torch.device, images: torch.Tensor, labels: torch.Tensor, rounds: int) -> float:
    """Seconds of the authors' float32 step."""
    network, benchmark = ade_twins(device)[0].train(), ade_benchmark()
    optimizer = their_optimizer(network, benchmark)

    def step() -> object:
        return their_step(network, optimizer, images, labels, benchmark.optimizer.lr, 2)

    step()
    return sorted(timed(step, device) for _ in range(rounds))[rounds // 2]


def _variant(
    name: str, device: torch.device, images: torch.Tensor, labels: torch.Tensor, rounds: int, baseline: float
) -> dict[str, object]:
    precision, channels_last, in_one_graph = _VARIANTS[name]
    if device.type == "cuda":
        set_kernels(device, precision)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    model = ade_network(device).train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    flops, traffic = _work(model, images, precision)
    trainer = make_trainer(model, device, precision)
    if in_one_graph:
        trainer = replace(trainer, parallel=compiled(model))

    def step() -> dict[str, object]:
        torch.manual_seed(3)
        return training_step(trainer, [(images, labels)], 0, 2)

    started = time.perf_counter()
    loss = float(step()["loss"])
    for _ in range(2):
        step()  # gradients and momenta exist, kernels are chosen
    first = time.perf_counter() - started
    seconds = sorted(timed(step, device) for _ in range(rounds))[rounds // 2]
    return {
        "seconds": seconds,
        "faster": baseline / seconds,
        "warm_up_s": first,
        "memory": extra_memory(step, device)["extra"],
        "loss": loss,
        "flops": flops,
        "bytes": traffic,
        "floor_flops_s": flops / _matmul_rate(device, precision),
        "floor_bytes_s": traffic / _copy_rate(device),
        "graphs": torch._dynamo.utils.counters["stats"].get("unique_graphs", 0),
        "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
    }


def _work(model: torch.nn.Module, images: torch.Tensor, precision: str) -> tuple[int, int]:
    """Floating-point operations of forward and backward, and bytes that must move at least."""
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast(images.device, precision):
            output = model(images)
            total = sum(maps.float().sum() for maps in (output.logits, output.coarse, *output.auxiliary))
        total.backward()
    model.zero_grad(set_to_none=True)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    activations = sum(size for pointer, size in saved.items() if pointer not in own)
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    return counter.get_total_flops(), 2 * activations + _PARAMETER_PASSES * parameters


def _matmul_rate(device: torch.device, precision: str) -> float:
    """Operations per second of one large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def _copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of one large copy."""
    source = torch.empty(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(timed(lambda: target.copy_(source), device) for _ in range(5))
