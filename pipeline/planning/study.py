"""What a study runs: `studies/<name>.yaml`, typed, and the benchmarks that its variants stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.config import Benchmark, load_benchmark
from pipeline.config.parse import parse, problems_of, read_yaml, suggestion
from pipeline.config.schema import Positive, Section, Seeds
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError


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

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Seeds


class SizeConfig(Section):
    """One way to afford the study; `set` is laid over the benchmark before any variant is."""

    description: str
    note: str = ""  # how its settings were chosen, for the report
    set: dict[str, Any] = Field(default_factory=dict)
    order: Annotated[tuple[RoundConfig, ...], Field(min_length=1)]


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
    sizes: Annotated[dict[str, SizeConfig], Field(min_length=1)]
    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]
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
    """Study `name` in `size`. Raises PipelineError that lists everything that is wrong with its file."""
    config = load_study(root, name)
    if size not in config.sizes:
        raise PipelineError(f"studies/{name}.yaml: no size {size!r}; it has {', '.join(config.sizes)}")
    benchmarks, problems = valid_variants(root, name, config, size)
    if problems:
        raise PipelineError("\n".join(problems))
    runs = (
        (variant, seed)
        for part in config.sizes[size].order
        for seed in part.seeds
        for variant, its in config.variants.items()
        if its.group in part.groups
    )
    return Plan(name, size, config, benchmarks, tuple(dict.fromkeys(runs)))


def valid_variants(root: Path, name: str, config: StudyConfig, size: str) -> tuple[dict[str, Benchmark], list[str]]:
    """The benchmarks of the variants that are valid in `size`, and the problems of the file, one a line.

    A mistake is told where it stands, not again for every variant that is made of another. Raises PipelineError when
    the study's own benchmark is not valid.
    """
    base = load_benchmark(root, config.benchmark).model_dump(mode="json")
    problems = [*_unknown_names(config), *_unknown_classes(config, base["dataset"]["name"])]
    base = laid_over(base, config.sizes[size].set)
    of_size = problems_of(Benchmark, base)
    mistakes: dict[str, list[str]] = {}
    benchmarks: dict[str, Benchmark] = {}
    for variant, its in config.variants.items():
        if its.of is not None and its.of not in mistakes:
            continue  # made of a variant that is unknown or stands below it, as told already
        data = _variant_data(base, config, variant) | {"id": f"{name}-{size}-{variant}"}
        mistakes[variant] = problems_of(Benchmark, data)
        if not mistakes[variant]:
            benchmarks[variant] = Benchmark.model_validate(data)
        inherited = mistakes.get(its.of or "", [])
        problems += [f"sizes.{size}.set: {mistake}" for mistake in mistakes[variant] if mistake in of_size]
        problems += [
            f"variants.{variant}: {mistake}" for mistake in mistakes[variant] if mistake not in {*of_size, *inherited}
        ]
    return benchmarks, [f"studies/{name}.yaml: {problem}" for problem in dict.fromkeys(problems)]


def laid_over(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`overlay` over `base`, key by key; unlike an ablation it adds sections, so that `memory: {}` adds a memory.

    The options of a framework are replaced as a whole: those of another one would not fit.
    """
    merged = dict(base)
    for key, value in overlay.items():
        deeper = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "options"
        merged[key] = laid_over(merged[key], value) if deeper else value
    return merged


def _variant_data(base: dict[str, Any], config: StudyConfig, variant: str) -> dict[str, Any]:
    """The variant's benchmark, untyped: what its ancestors change first, then its own changes."""
    chain = [variant]
    while (parent := config.variants[chain[-1]].of) is not None:
        chain.append(parent)
    data, times = base, 1
    for name in reversed(chain):
        data = laid_over(data, config.variants[name].set)
        times *= config.variants[name].epochs_times
    data = data | {"description": config.variants[variant].title}
    schedule = data["schedule"]
    if isinstance(schedule, dict):  # what is none, or holds no numbers, is told when it gets its type
        counts = {key: schedule.get(key) for key in ("epochs", "validate_every")}
        data["schedule"] = schedule | {key: times * n for key, n in counts.items() if isinstance(n, int)}
    return data


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
            problems.append(f"{place}: no {name!r}; {suggestion(name, list(known))}")
    order = list(config.variants)
    for name, variant in config.variants.items():
        if variant.of in order and order.index(variant.of) >= order.index(name):
            problems.append(f"variants.{name}.of: {variant.of!r} must stand above it")
    return problems


def _unknown_classes(config: StudyConfig, dataset: str) -> list[str]:
    """Rare classes that the dataset does not have."""
    try:
        classes = get_dataset(dataset).classes
    except PipelineError as error:
        return [f"benchmark: {error}"]
    return [
        f"rare_classes: {dataset} has no {name!r}; {suggestion(name, classes)}"
        for name in config.rare_classes
        if name not in classes
    ]
