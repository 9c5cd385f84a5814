"""Benchmarks that `runtime` of params.yaml cannot run as asked: each function returns what is wrong and the remedy."""

from __future__ import annotations

from pipeline.config.schema import Benchmark, RuntimeConfig


def compile_problem(benchmark: Benchmark, runtime: RuntimeConfig) -> str | None:
    """Why `runtime.compile` cannot train this benchmark; None when it can, or is not asked to."""
    if not runtime.compile or benchmark.mode == "import":
        return None
    if benchmark.memory is not None and benchmark.memory.gradient == "updated":
        return (
            f"params.yaml: runtime.compile: {benchmark.id} has memory.gradient: updated, but a compiled backward pass "
            "only knows the memory that the forward pass read; set compile: false, or `ablation: {memory: {gradient: "
            "exact}}`, which is another gradient"
        )
    if runtime.devices * runtime.nodes > 1:
        return (
            f"params.yaml: runtime.compile: {runtime.devices} devices on {runtime.nodes} nodes, but synchronised batch "
            "norm cannot be compiled in one piece; set compile: false, or train on one device"
        )
    return None


def share_problem(benchmark: Benchmark, runtime: RuntimeConfig, least: int = 1) -> str | None:
    """Why the devices cannot take equal shares of this benchmark's batch; None when they can, or need not.

    A batch is divided equally among the devices, and each share into `accumulate` equal parts. least: images that a
    part needs, 2 where the network pools to a single cell before a batch norm, unless that spans several GPUs.
    """
    batch, parts = benchmark.schedule.batch_size, runtime.devices * runtime.nodes * runtime.accumulate
    alone = parts == runtime.accumulate or runtime.device == "cpu"
    least = least if alone else 1
    if benchmark.mode == "import" or (batch % parts == 0 and batch // parts >= least):
        return None
    divisors = ", ".join(str(n) for n in range(1, batch // least + 1) if batch % n == 0)
    reason = "these cannot share equally"
    if batch % parts == 0:
        reason = "leaves one image to each part, and batch norm of a map that is one pixel needs two"
    return (
        f"params.yaml: runtime: devices: {runtime.devices}, nodes: {runtime.nodes}, accumulate: {runtime.accumulate}, "
        f"but {benchmark.id} has schedule.batch_size: {batch}, which {reason}; devices x nodes x accumulate may be "
        f"{divisors}"
    )
