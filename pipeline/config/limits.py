"""Benchmarks that `runtime` of params.yaml cannot run as asked: each function returns what is wrong and the remedy."""

from __future__ import annotations

from pipeline.config.schema import Benchmark, RuntimeConfig

POOLED_TO_ONE_CELL = ("deeplabv3", "pspnet", "upernet")  # frameworks with a branch that averages the whole image


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


def share_problem(benchmark: Benchmark, runtime: RuntimeConfig) -> str | None:
    """Why the devices cannot take equal shares of this benchmark's batch; None when they can, or need not.

    A batch is divided equally among the devices, and each share into `accumulate` equal parts. Where the context is
    pooled to a single cell, batch norm needs two images in a part, unless it pools over several GPUs.
    """
    batch, parts = benchmark.schedule.batch_size, runtime.devices * runtime.nodes * runtime.accumulate
    alone = parts == runtime.accumulate or runtime.device == "cpu"
    least = 2 if benchmark.segmentor.framework in POOLED_TO_ONE_CELL and alone else 1
    if benchmark.mode == "import" or (batch % parts == 0 and batch // parts >= least):
        return None
    divisors = ", ".join(str(n) for n in range(1, batch // least + 1) if batch % n == 0)
    reason = "these cannot share equally"
    if batch % parts == 0:
        framework = benchmark.segmentor.framework
        reason = f"leaves one image to each part, and batch norm after the global pooling of {framework} needs two"
    return (
        f"params.yaml: runtime: devices: {runtime.devices}, nodes: {runtime.nodes}, accumulate: {runtime.accumulate}, "
        f"but {benchmark.id} has schedule.batch_size: {batch}, which {reason}; devices x nodes x accumulate may be "
        f"{divisors}"
    )
