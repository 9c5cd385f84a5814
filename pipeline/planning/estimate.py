"""How long the stages will take and what disk they need: estimates, each with what it rests on.

Operations are counted (`pipeline.planning.cost`). How many a second this machine does is taken from earlier trainings
here, as long as there are any on the same kind of device whose model can still be built; else one convolution is timed,
which tells the order of magnitude.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from pipeline.config import Benchmark, config_hash, load_resolved
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.files.storage import cached_json
from pipeline.planning.cost import evaluation_cost, training_cost
from pipeline.planning.row_plan import RowPlan
from pipeline.planning.validate import benchmark_problems

_PROBE = (8, 256, 32, 32)  # (B, C, H, W) of the convolution that is timed
_PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class Speed:
    """Operations per second, over all and of single benchmarks as they were measured, and the source in words."""

    flops: float
    by_benchmark: dict[str, float]
    basis: str

    def of(self, benchmark: str) -> float:
        """Operations per second to expect of a benchmark."""
        return self.by_benchmark.get(benchmark, self.flops)


def stage_seconds(stage: str, plans: Mapping[str, RowPlan], speed: Speed) -> float:
    """One stage as DVC names it, `train@BENCHMARK-SEED` say; 0 for those that take seconds whatever is chosen."""
    name, _, item = stage.partition("@")
    plan = plans.get(item.rpartition("-")[0])
    if plan is None:
        return 0.0
    return training_seconds(plan, speed) if name == "train" else evaluation_seconds(plan, speed)


def training_seconds(plan: RowPlan, speed: Speed) -> float:
    """One training with its validations; 0 for an imported checkpoint."""
    if plan.training is None:
        return 0.0
    schedule, data = plan.benchmark.schedule, plan.benchmark.dataset
    validations = -(-schedule.epochs // schedule.validate_every)
    single = plan.benchmark.inference.model_copy(update={"ms_flip": plan.benchmark.inference.single_scale})
    images = plan.spec.splits[data.validation_split]
    one = evaluation_cost(plan.benchmark.model_copy(update={"inference": single}), plan.spec, images, 1)
    total = plan.training.iterations * plan.training.flops + validations * images * one.flops
    return total / speed.of(plan.benchmark.id)


def evaluation_seconds(plan: RowPlan, speed: Speed) -> float:
    """One evaluation under both protocols."""
    return plan.evaluation.images * plan.evaluation.flops / speed.of(plan.benchmark.id)


def machine_speed(root: Path, device: torch.device) -> Speed:
    """What trainings under `root` reached on a device of this type, else what one convolution reaches."""
    measured: dict[str, list[float]] = {}
    counted: dict[str, int] = {}  # operations of a step by configuration: seeds share one, and counting takes a second
    left_out = 0
    for path in sorted((root / "runs" / "train").glob("*/*/cost.json")):
        cost = cached_json(path)
        seconds = cost.get("seconds_per_iteration")
        if not seconds or str(cost.get("device")).partition(":")[0] != device.type:
            continue
        try:
            benchmark = load_resolved(path.with_name("config.yaml"))
            key = config_hash(benchmark)
            if key not in counted:
                counted[key] = _step_flops(root, benchmark)
        except PipelineError:  # a leftover of other code, or of a part of it: an estimate can do without, and says so
            left_out += 1
            continue
        measured.setdefault(benchmark.id, []).append(counted[key] / seconds)
    without = f"; {left_out} left out, whose configuration is missing or no longer valid" if left_out else ""
    if measured:
        by_benchmark = {name: statistics.median(values) for name, values in measured.items()}
        middle = statistics.median(by_benchmark.values())
        count = sum(map(len, measured.values()))
        basis = f"at what {count} earlier training{'s' * (count > 1)} under runs/train reached"
        return Speed(middle, by_benchmark, f"{basis}, {middle / 1e9:.3g} GFLOP/s in the middle{without}")
    flops = _convolution_speed(device)
    basis = f"if it ran at the {flops / 1e9:.3g} GFLOP/s of one convolution, timed just now on {device}"
    return Speed(flops, {}, f"{basis}; a network may be a few times slower, or faster{without}")


def data_bytes(plan: RowPlan) -> tuple[int | None, str]:
    """Disk that a dataset still takes, None where its owners announce no size, and what that is."""
    size, copies, basis = plan.spec.download_bytes, *plan.data_copies
    if not size and plan.spec.image_size:
        height, width = plan.spec.image_size
        return copies * sum(plan.spec.splits.values()) * height * width * 4, f"{basis}, uncompressed"
    return (None if size is None and copies else copies * (size or 0)), basis


def weight_bytes(plans: Sequence[RowPlan]) -> int:
    """Disk of the weights that trainings or imports keep, and of the state of one training under way."""
    kept = sum(2 * 4 * plan.parameters * len(plan.seeds) for plan in plans)
    states = [3 * 4 * plan.parameters for plan in plans if plan.training is not None]
    fetched = {plan.planned_weights.name: plan.weights_download[0] for plan in plans if _is_fetched(plan)}
    return kept + max(states, default=0) + sum(fetched.values())


def _is_fetched(plan: RowPlan) -> bool:
    return plan.planned_weights.kind is not None and not plan.weights.present


def _step_flops(root: Path, benchmark: Benchmark) -> int:
    """Operations of a training step. Raises PipelineError when the dataset, a split of it or the network is no more."""
    problems = benchmark_problems(root, benchmark)
    if problems:
        raise PipelineError("\n".join(problems))
    spec = get_dataset(benchmark.dataset.name)
    return training_cost(benchmark, spec, spec.splits).flops


def _convolution_speed(device: torch.device) -> float:
    """Operations per second of a 3x3 convolution in float32, the first call left out."""
    images, kernel = torch.randn(_PROBE, device=device), torch.randn(_PROBE[1], _PROBE[1], 3, 3, device=device)
    operations = 2 * images.numel() * _PROBE[1] * 9

    def run() -> None:
        F.conv2d(images, kernel, padding=1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        run()
        begin, calls = time.perf_counter(), 0
        while time.perf_counter() - begin < _PROBE_SECONDS:
            run()
            calls += 1
    return calls * operations / (time.perf_counter() - begin)
