"""Study files: `studies/<name>.yaml`, typed, and the benchmarks that its variants are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from pipeline.config.load import config_hash, load_benchmark
from pipeline.config.overlay import overlay
from pipeline.config.parse import parse, problems_of, read_yaml, suggestion
from pipeline.config.schema import Benchmark, Positive, Section, Seeds
from pipeline.errors import PipelineError


class VariantConfig(Section):
    """One variant: its changes to another variant (`of`), or to the study's benchmark."""

    group: str
    title: str
    of: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)  # keys of a benchmark file, see `pipeline.config.overlay`
    start: str | None = None  # variant whose weights of the same seed this training starts from; not inherited
    epochs_times: Positive = 1  # multiplies `schedule.epochs` and `validate_every`: fewer images, equal iterations


class RoundConfig(Section):
    """Variants of some groups with some seeds, all run before the next round begins."""

    groups: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Seeds


class SizeConfig(Section):
    """One computational budget of the study."""

    description: str
    note: str = ""  # how its settings were chosen, for the report
    set: dict[str, Any] = Field(default_factory=dict)  # laid over the benchmark before any variant is
    order: Annotated[tuple[RoundConfig, ...], Field(min_length=1)]


class ComparisonConfig(Section):
    """A question, answered by differences between two variants each: [without, with]."""

    question: str
    note: str = ""
    pairs: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    pooled: bool = False  # also the mean over the pairs

    @model_validator(mode="after")
    def _pooled_pairs_share_nothing(self) -> ComparisonConfig:
        sides = [side for pair in self.pairs for side in pair]
        if self.pooled and len(set(sides)) < len(sides):
            raise ValueError("pooled: a variant is in two pairs, so their gains are not independent; use pooled: false")
        return self


class StudyConfig(Section):
    """`studies/<name>.yaml`."""

    title: str
    benchmark: str
    rare_classes: tuple[str, ...] = ()
    sizes: Annotated[dict[str, SizeConfig], Field(min_length=1)]
    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]
    comparisons: dict[str, ComparisonConfig]


@dataclass(frozen=True)
class StudyPlan:
    """A study in one size. runs: (variant, seed), most informative first, as `order` of the study says."""

    name: str
    size: str
    config: StudyConfig
    benchmarks: dict[str, Benchmark]  # by variant; the id is `<study>-<size>-<variant>`
    runs: tuple[tuple[str, int], ...]

    def folder(self, root: Path) -> Path:
        """Where the study's report is written."""
        return root / "reports" / self.name / self.size

    def records(self, root: Path) -> Path:
        """Where the records of its runs are kept, in Git."""
        return self.folder(root) / "runs"


def load_study(root: Path, name: str) -> StudyConfig:
    """`studies/<name>.yaml`, its variants not resolved. Raises PipelineError for unknown keys and invalid values."""
    return parse(StudyConfig, read_yaml(root / "studies" / f"{name}.yaml"), f"studies/{name}.yaml")


def load_plan(root: Path, name: str, size: str) -> StudyPlan:
    """Study `name` in `size`. Raises PipelineError that lists every problem of its file."""
    config = load_study(root, name)
    if size not in config.sizes:
        raise PipelineError(f"studies/{name}.yaml: unknown size {size!r}; {suggestion(size, config.sizes, 'sizes')}")
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
    return StudyPlan(name, size, config, benchmarks, tuple(dict.fromkeys(runs)))


class _Derived(NamedTuple):
    """What a variant passes on to those that are `of` it."""

    keys: dict[str, Any]
    times: int  # multiplies the epochs
    problems: list[str]


def valid_variants(root: Path, name: str, config: StudyConfig, size: str) -> tuple[dict[str, Benchmark], list[str]]:
    """The benchmarks of the variants that are valid in `size`, and the problems of the file, one per line.

    A problem is reported where it is made, not again for the variants derived from there. Raises PipelineError when the
    study's own benchmark is not valid.
    """
    base = overlay(load_benchmark(root, config.benchmark).model_dump(mode="json"), config.sizes[size].set)
    of_size = problems_of(Benchmark, base)
    problems = _unknown_names(config)
    derived: dict[str | None, _Derived] = {None: _Derived(base, 1, of_size)}
    benchmarks: dict[str, Benchmark] = {}
    for variant, its in config.variants.items():
        if its.of not in derived:
            continue  # unknown, or listed below this one; `_unknown_names` reports both
        parent, begun = derived[its.of], benchmarks.get(its.start)
        keys, times = overlay(parent.keys, its.set), parent.times * its.epochs_times
        about = {"id": f"{name}-{size}-{variant}", "description": its.title}
        data = keys | _started(begun) | about
        found = problems_of(Benchmark, data)
        derived[variant] = _Derived(keys, times, found)
        if "start" in its.set:
            problems.append(f"variants.{variant}.set.start: unknown key; name the variant in `start`, beside `set`")
        if not found:
            benchmarks[variant] = _longer(Benchmark.model_validate(data), times)
            if begun and begun.encoder != benchmarks[variant].encoder:
                problems.append(f"variants.{variant}.start: the encoder of {its.start!r} is another one")
        problems += [f"sizes.{size}.set: {problem}" for problem in found if problem in of_size]
        known = {*of_size, *parent.problems}
        problems += [f"variants.{variant}: {problem}" for problem in found if problem not in known]
    return benchmarks, [f"studies/{name}.yaml: {problem}" for problem in dict.fromkeys(problems)]


def _longer(benchmark: Benchmark, times: int) -> Benchmark:
    """With `times` as many epochs, and validated as much less often."""
    schedule = benchmark.schedule
    more = {key: times * getattr(schedule, key) for key in ("epochs", "validate_every")}
    return benchmark.model_copy(update={"schedule": schedule.model_copy(update=more)})


def _started(begun: Benchmark | None) -> dict[str, Any]:
    """The key `start` of a benchmark that goes on from `begun`."""
    return {"start": {"benchmark": begun.id, "config_hash": config_hash(begun)}} if begun else {}


def _unknown_names(config: StudyConfig) -> list[str]:
    """Variants and groups that are named but do not exist, and variants that need one that is listed below them."""
    variants, groups = list(config.variants), sorted({variant.group for variant in config.variants.values()})
    named = [(f"variants.{name}.of", [v.of], variants) for name, v in config.variants.items() if v.of is not None]
    named += [(f"variants.{name}.start", [v.start], variants) for name, v in config.variants.items() if v.start]
    named += [(f"comparisons.{key}.pairs", chain(*its.pairs), variants) for key, its in config.comparisons.items()]
    named += [
        (f"sizes.{key}.order", chain(*(part.groups for part in size.order)), groups)
        for key, size in config.sizes.items()
    ]
    problems = [
        f"{place}: unknown name {name!r}; {suggestion(name, known)}"
        for place, names, known in named
        for name in names
        if name not in known
    ]
    for position, (name, variant) in enumerate(config.variants.items()):
        for key in ("of", "start"):
            if (other := getattr(variant, key)) in variants[position:]:
                problems.append(f"variants.{name}.{key}: {other!r} must be listed above it")
    return problems
