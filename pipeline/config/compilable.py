"""What `runtime.compile` cannot do."""

from __future__ import annotations

from pipeline.config.schema import Benchmark, RuntimeConfig


def compile_problem(benchmark: Benchmark, runtime: RuntimeConfig) -> str | None:
    """Why this benchmark cannot be trained compiled, and what to do; None when it can, or is not to be."""
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
            f"params.yaml: runtime.compile: {runtime.devices} devices on {runtime.nodes} nodes, but batch norm that "
            "asks other devices cannot be compiled in one piece; set compile: false, or train on one device"
        )
    return None
