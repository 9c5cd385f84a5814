"""What a study runs: `studies/<name>.yaml`, typed, and the benchmarks that its variants stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.config import Benchmark, load_benchmark
from pipeline.config.parse import nearest, parse, read_yaml
from pipeline.config.schema import Positive, Section
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class VariantConfig(Section):
    """One line of the study: what it changes, of another variant (`of`) or of the study's benchmark."""

    group: str
    title: str
    of: str | None = None
    set: dict[str, Any] = Field(
        default_factory=dict
    )  # keys of a benchmark file; a section that is absent so far is added
    epochs_times: Positive = 1  # multiplies `schedule.epochs` and `validate_every`: fewer images, equal iterations


class RoundConfig(Section):
    """Variants of some groups with some seeds, all run before the next round begins."""

    groups: tuple[str, ...]
    seeds: Seeds


class SizeConfig(Section):
    """One way to afford the study; `set` is laid over the benchmark before any variant is."""

    description: str
    note: str = ""  # how its settings were chosen, for the report
    set: dict[str, Any] = Field(default_factory=dict)
    order: tuple[RoundConfig, ...]


class ComparisonConfig(Section):
    """A question, answered by differences between two variants each: [without, with]."""

    question: str
    note: str = ""
    pairs: tuple[tuple[str, str], ...]
    pooled: bool = False  # also the mean over the pairs


class StudyConfig(Section):
    """`studies/<name>.yaml`."""

    title: str
    benchmark: str
    frames_per_block: Positive = 1  # consecutive images that are resampled together
    rare_classes: tuple[str, ...] = ()
    sizes: dict[str, SizeConfig]
    variants: dict[str, VariantConfig]
    comparisons: dict[str, ComparisonConfig]


@dataclass(frozen=True)
class Plan:
    """A study in one size. runs: (variant, seed) in the order in which they are worth their time."""

    name: str
    size: str
    config: StudyConfig
    benchmarks: dict[str, Benchmark]  # by variant; the id is `<study>-<size>-<variant>`
    runs: tuple[tuple[str, int], ...]


def load_study(root: Path, name: str) -> StudyConfig:
    """`studies/<name>.yaml`. Raises PipelineError for keys that it does not have, or values that are none."""
    return parse(StudyConfig, read_yaml(root / "studies" / f"{name}.yaml"), f"studies/{name}.yaml")


def load_plan(root: Path, name: str, size: str) -> Plan:
    """Study `name` in `size`. Raises PipelineError that lists what is wrong with its file."""
    where, config = f"studies/{name}.yaml", load_study(root, name)
    if size not in config.sizes:
        raise PipelineError(f"{where}: no size {size!r}; it has {', '.join(config.sizes)}")
    problems = _unknown_names(config)
    if problems:
        raise PipelineError("\n".join(f"{where}: {problem}" for problem in problems))
    base = load_benchmark(root, config.benchmark).model_dump(mode="json")
    problems = _unknown_classes(config, base["dataset"]["name"])
    if problems:
        raise PipelineError("\n".join(f"{where}: {problem}" for problem in problems))
    base = laid_over(base, config.sizes[size].set)
    benchmarks = {
        variant: _benchmark(base, config, variant, f"{name}-{size}-{variant}", where) for variant in config.variants
    }
    runs = (
        (variant, seed)
        for part in config.sizes[size].order
        for seed in part.seeds
        for variant, its in config.variants.items()
        if its.group in part.groups
    )
    return Plan(name, size, config, benchmarks, tuple(dict.fromkeys(runs)))


def laid_over(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`overlay` over `base`, key by key; unlike an ablation it adds sections, so that `memory: {}` adds a memory.

    The options of a framework are replaced as a whole: those of another one would not fit.
    """
    merged = dict(base)
    for key, value in overlay.items():
        deeper = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "options"
        merged[key] = laid_over(merged[key], value) if deeper else value
    return merged


def _benchmark(base: dict[str, Any], config: StudyConfig, variant: str, benchmark_id: str, where: str) -> Benchmark:
    """The variant's benchmark: what its ancestors change first, then its own changes."""
    chain = [variant]
    while (parent := config.variants[chain[-1]].of) is not None:
        chain.append(parent)
    data, times = base, 1
    for name in reversed(chain):
        data = laid_over(data, config.variants[name].set)
        times *= config.variants[name].epochs_times
    schedule = data["schedule"]
    data = data | {
        "id": benchmark_id,
        "description": config.variants[variant].title,
        "schedule": schedule | {key: times * schedule[key] for key in ("epochs", "validate_every")},
    }
    return parse(Benchmark, data, f"{where}: variants.{variant}")


def _unknown_names(config: StudyConfig) -> list[str]:
    """Variants, groups and classes that are named but do not exist, and variants that are made of themselves."""
    groups = sorted({variant.group for variant in config.variants.values()})
    named = [(f"variants.{name}.of", v.of, config.variants) for name, v in config.variants.items() if v.of is not None]
    named += [
        (f"comparisons.{key}.pairs", side, config.variants)
        for key, comparison in config.comparisons.items()
        for pair in comparison.pairs
        for side in pair
    ]
    named += [
        (f"sizes.{key}.order", group, groups)
        for key, size in config.sizes.items()
        for part in size.order
        for group in part.groups
    ]
    problems = []
    for place, name, known in named:
        if name not in known:
            near = nearest(name, list(known))
            problems.append(f"{place}: no {name!r}{f'; did you mean `{near}`?' if near else ''}")
    order = list(config.variants)
    for name, variant in config.variants.items():
        if variant.of in order and order.index(variant.of) >= order.index(name):
            problems.append(f"variants.{name}.of: {variant.of!r} must stand above it")
    return problems


def _unknown_classes(config: StudyConfig, dataset: str) -> list[str]:
    """Rare classes that the dataset does not have."""
    classes = list(get_dataset(dataset).classes)
    return [
        f"rare_classes: {dataset} has no {name!r}; did you mean `{nearest(name, classes)}`?"
        for name in config.rare_classes
        if name not in classes
    ]
