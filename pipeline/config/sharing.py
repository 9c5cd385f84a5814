"""How `runtime` shares a batch among devices."""

from __future__ import annotations

from pipeline.config.schema import Benchmark, RuntimeConfig


def share_problem(benchmark: Benchmark, runtime: RuntimeConfig) -> str | None:
    """Why the devices cannot share this benchmark's batch equally, and what to do; None when they can, or need not.

    The arithmetic of `pipeline.datasets.loader.Share`: an equal share for each device, cut into equal parts.
    """
    batch = benchmark.schedule.batch_size
    if benchmark.mode == "import" or batch % (runtime.devices * runtime.nodes * runtime.accumulate) == 0:
        return None
    fits = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
    return (
        f"params.yaml: runtime: devices: {runtime.devices}, nodes: {runtime.nodes}, accumulate: {runtime.accumulate}, "
        f"but {benchmark.id} has schedule.batch_size: {batch}, which these cannot share equally; devices x nodes x "
        f"accumulate may be {fits}"
    )
