"""What running a row will take, said before it starts: every size with its basis, every estimate called one."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pipeline.config import Benchmark
from pipeline.config.schema import SourceConfig
from pipeline.planning.cost import ASSUMED_FLOPS, LEFT_OUT, TrainingCost
from pipeline.planning.row_plan import RowPlan
from pipeline.results.published import published_of
from pipeline.runtime.device import resolve_device

_TERA, _GIGA, _GIB = 1e12, 1e9, 2**30
_RATE = f"at an assumed {ASSUMED_FLOPS / _TERA:g} TFLOP/s"


def describe_row(plan: RowPlan) -> str:
    """The plan of one row for the terminal."""
    benchmark, trains = plan.benchmark, plan.training is not None
    seeds = f"{'seed' if len(plan.seeds) == 1 else 'seeds'} {', '.join(map(str, plan.seeds))}"
    how = f"train from {benchmark.encoder.weights}, {seeds}" if trains else "evaluate the published checkpoint"
    lines = [
        ("published", _published(benchmark)),
        ("data", _data(plan)),
        ("weights", _weights(plan)),
        ("model", f"{plan.parameters / 1e6:.1f} M parameters"),
        *_costs(plan),
        ("device", _device(plan)),
        ("disk", _disk(plan)),
    ]
    if plan.changes:
        lines.append(("ablation", f"params.yaml changes {', '.join(plan.changes)}: the row will not be judged"))
    lines.append(("note", "memory and time are estimates; nothing was measured"))
    return f"{benchmark.id}: {how}\n" + "\n".join(f"  {label:10} {words}" for label, words in lines)


def describe_rows(plans: list[RowPlan], left_out: Mapping[str, str]) -> str:
    """Several rows as a table, then those that are left out and why."""
    width = max(len(name) for name in (*left_out, *(plan.benchmark.id for plan in plans)))
    lines = [f"{'row':{width}}  {'weights':18}  GPU memory   time"]
    for plan in plans:
        weights = "present" if plan.weights.present else f"download {size_text(plan.weights_download[0])}"
        memory = f"{plan.memory_bytes / _GIB:.1f} GiB"
        lines.append(f"{plan.benchmark.id:{width}}  {weights:18}  {memory:>10}   {time_text(plan.seconds)}")
    total = time_text(sum(plan.seconds for plan in plans))
    lines.append(f"together about {total} {_RATE}")
    lines.append("Memory and time are estimates; nothing was measured.")
    lines += [f"left out: {name:{width}}  {reason}" for name, reason in left_out.items()]
    return "\n".join(lines)


def _published(benchmark: Benchmark) -> str:
    published = published_of(benchmark)
    parts = []
    for name, scores in (("model zoo", published.model_zoo), ("paper", published.paper)):
        if scores is not None:
            pairs = ((scores.single_scale, "single scale"), (scores.ms_flip, "ms+flip"))
            told = [f"{value:.2f} {words}" for value, words in pairs if value is not None]
            parts.append(f"{' and '.join(told)} ({name})")
    return "mIoU " + "; ".join(parts)


def _data(plan: RowPlan) -> str:
    counts = ", ".join(f"{number} {split}" for split, number in plan.spec.splits.items())
    size = "size not announced" if plan.spec.download_bytes is None else f"about {size_text(plan.spec.download_bytes)}"
    if plan.data.present:
        where = f"present: {plan.data.path}"
    elif plan.obstacle is not None:
        where = "absent"
    else:
        where = "absent: will be downloaded"
    whole = isinstance(plan.project.sources.get(plan.spec.name), SourceConfig)
    part = "; a declared part: its numbers are not comparable" if whole else ""
    return f"{plan.spec.name}, {counts} images; archives {size} as announced; {where}{part}"


def _weights(plan: RowPlan) -> str:
    weights = plan.planned_weights
    if weights.kind is None:
        return "none: trained from scratch or from a package"
    if plan.weights.present:
        return f"present: {plan.weights.path}"
    size, basis = plan.weights_download
    return f"download of about {size_text(size)} ({basis}): {weights.urls[0]}"


def _costs(plan: RowPlan) -> list[tuple[str, str]]:
    lines = [*_training(plan.training, plan)] if plan.training else []
    cost = plan.evaluation
    several = f"{cost.batch_size} images" if cost.batch_size > 1 else "one image"
    assumed = "" if plan.spec.image_size else ", a size assumed for all"
    return [
        *lines,
        (
            "evaluation",
            f"about {_gib(cost.memory_bytes)} of GPU memory for {several} of {cost.size[0]}x{cost.size[1]} at once "
            f"(runtime.evaluation_batch){assumed}",
        ),
        (
            "",
            f"about {time_text(cost.seconds)}: {cost.images} images of {cost.flops / _TERA:.1f} TFLOP for both "
            f"protocols, {_RATE}",
        ),
        ("memory", f"in float32, without {LEFT_OUT}"),
    ]


def _training(cost: TrainingCost, plan: RowPlan) -> list[tuple[str, str]]:
    crop = "x".join(map(str, plan.benchmark.augmentation.crop))
    each = f" for each of {len(plan.seeds)} seeds" if len(plan.seeds) > 1 else ""
    return [
        (
            "training",
            f"about {_gib(cost.memory_bytes)} of GPU memory for {cost.batch_size} crops of {crop}: "
            f"{_gib(cost.weight_bytes)} weights, {_gib(cost.optimizer_bytes)} optimiser state and "
            f"{_gib(cost.peak_bytes)} at the peak of a step, of it {_gib(cost.activation_bytes)} activations kept for "
            f"the backward pass and {_gib(cost.gradient_bytes)} gradients",
        ),
        (
            "",
            f"about {time_text(cost.seconds)}{each}: {cost.iterations} iterations of {cost.flops / _TERA:.1f} TFLOP, "
            f"{_RATE}, validation left out",
        ),
    ]


def _device(plan: RowPlan) -> str:
    device = resolve_device(plan.project.runtime.device)
    if device.type != "cuda":
        return f"{device}: no GPU is used, so the time above does not apply"
    total = torch.cuda.get_device_properties(device).total_memory
    fits = "" if plan.memory_bytes < total else ", LESS than expected to be needed"
    return f"{torch.cuda.get_device_name(device)} with {_gib(total)}{fits}"


def _disk(plan: RowPlan) -> str:
    spec, (copies, basis) = plan.spec, plan.data_copies
    weights = plan.parameters * 4
    kept = weights * (2 + (3 if plan.training else 1))  # last and best; and state to resume from, or the checkpoint
    if copies and spec.download_bytes is None:
        return f"size of the data not announced ({basis}), and about {size_text(kept)} of weights"
    data = copies * (spec.download_bytes or 0)
    return f"about {size_text(data + kept)}: {size_text(data)} of data ({basis}), {size_text(kept)} of weights"


def _gib(number: float) -> str:
    return f"{number / _GIB:.1f} GiB"


def size_text(number: float) -> str:
    """Bytes in GB."""
    return f"{number / _GIGA:.2f} GB"


def time_text(seconds: float) -> str:
    """Seconds in the largest unit of which there are two."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
