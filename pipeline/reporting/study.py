"""What a report is about: variants that were run, and comparisons between them.

A study comes from `params.yaml` (`chosen_study`: the chosen benchmarks, compared with their `baseline:`) or from the
records of a study in Git (`recorded_study`). The first reads all result files, the second scores and counts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Benchmark, load_project, load_resolved
from pipeline.config.schema import PROTOCOLS
from pipeline.config.study import StudyPlan
from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.reporting.words import framework
from pipeline.results.compare import marks
from pipeline.results.metrics import Counts
from pipeline.results.published import changed_keys, published_benchmarks, published_rows
from pipeline.results.reference import Reference, read_reference
from pipeline.results.run import Run, read_record, read_run, record_path
from pipeline.results.statistics import Estimate, Scores, frame_blocks, holm, pooled_gain, scores
from pipeline.results.verdict import Pair


@dataclass(frozen=True)
class Variant:
    """One line of the study. runs: by seed, ascending; empty if nothing was run yet."""

    name: str
    title: str
    group: str
    benchmark: Benchmark
    spec: DatasetSpec
    runs: tuple[Run, ...]
    prepared: Prepared | None = None  # None for records in Git

    @property
    def imported(self) -> bool:
        """The weights are those of a published checkpoint: nothing was trained, and a seed means nothing."""
        return self.benchmark.mode == "import"

    @property
    def split(self) -> str:
        """The split that was scored: the validation split when the labels of the published one are not public."""
        return self.runs[0].split

    @property
    def server_scored(self) -> bool:
        """The published split has no labels here, and the numbers are those of the validation split."""
        return self.split != self.benchmark.dataset.evaluation_split

    @property
    def is_part(self) -> bool:
        """The prepared data is a declared part of the dataset: no number from it compares with a published one."""
        return self.prepared is not None and self.prepared.info["splits"] != dict(self.spec.splits)

    def marks(self, file: Benchmark) -> list[str]:
        """Why this is not the published row of `file`, see `results.compare`."""
        return marks(file, self.benchmark, self.is_part, self.server_scored)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the N evaluated images, the same for every seed."""
        return self.runs[0].ids

    @property
    def blocks(self) -> NDArray[np.int64]:
        """Block of neighbouring frames of each image (N,), see `statistics.frame_blocks`."""
        return frame_blocks(self.ids, self.spec.frames_per_block)

    @property
    def class_share(self) -> NDArray[np.float64]:
        """Share of each class in the valid pixels of the evaluated split (K,)."""
        truth = self.runs[0].counts["single_scale"].truth.sum(axis=0)
        return truth / truth.sum()


@dataclass(frozen=True)
class Comparison:
    """A question, answered by differences between two variants each."""

    key: str
    question: str
    pairs: tuple[Pair, ...]
    note: str = ""
    pooled: bool = False  # also the mean over the pairs


@dataclass(frozen=True)
class Study:
    """All that a report is about."""

    title: str
    description: str
    variants: dict[str, Variant]  # by name, in the order of the tables
    comparisons: tuple[Comparison, ...]
    settings: str = ""  # where the settings of the variants come from, Markdown
    named_rare: tuple[str, ...] = ()  # classes that count as rare; empty: see `rare`
    planned: tuple[tuple[str, int], ...] = ()  # (variant, seed) of a study's file; empty for params.yaml
    foreign: tuple[str, ...] = ()  # records left out because another configuration made them
    published: tuple[Benchmark, ...] = ()  # every published benchmark as its file has it, run or not
    ablation: Mapping[str, Any] = field(default_factory=dict)  # of params.yaml
    references: Mapping[str, Reference] = field(default_factory=dict)  # by variant, to judge its runs by

    @property
    def is_recorded(self) -> bool:
        """Whether the runs are records in Git, without the files that curves, pictures and memories come from.

        A file of studies/ says how many there should be.
        """
        return bool(self.planned)

    @property
    def ran(self) -> list[Variant]:
        """Variants with at least one run."""
        return [variant for variant in self.variants.values() if variant.runs]

    @property
    def runs(self) -> list[Run]:
        """All runs, variant by variant."""
        return [run for variant in self.ran for run in variant.runs]

    @property
    def trained(self) -> list[Variant]:
        """Variants that were trained rather than imported."""
        return [variant for variant in self.ran if not variant.imported]

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Planned runs without a result."""
        there = {(run.name, run.seed) for run in self.runs}
        return [run for run in self.planned if run not in there]

    @property
    def rows(self) -> tuple[Benchmark, ...]:
        """The published rows with memory; the others of `published` are baselines."""
        return published_rows(self.published)

    @property
    def pairs(self) -> list[Pair]:
        """Every pair of a comparison with a common seed, once."""
        every = dict.fromkeys(pair for comparison in self.comparisons for pair in comparison.pairs)
        return [pair for pair in every if self.seeds(pair)]

    @property
    def unpaired(self) -> list[Variant]:
        """Variants that were run and are in no pair."""
        paired = {name for pair in self.pairs for name in pair}
        return [variant for variant in self.ran if variant.name not in paired]

    def sides(self, pair: Pair) -> tuple[Variant, Variant]:
        """(without, with)."""
        return self.variants[pair[0]], self.variants[pair[1]]

    def label(self, pair: Pair) -> str:
        """`DeepLabV3 → DeepLabV3 + memory`, or the title that both sides share."""
        without, with_ = (variant.title for variant in self.sides(pair))
        return with_ if without == with_ else f"{without} → {with_}"

    def seeds(self, names: Iterable[str]) -> tuple[int, ...]:
        """Seeds with which all of the variants were run, ascending."""
        common = set.intersection(*({run.seed for run in self.variants[name].runs} for name in names))
        return tuple(sorted(common))

    def shared_seeds(self, pairs: Sequence[Pair]) -> tuple[int, ...]:
        """Seeds with which both sides of all pairs were run."""
        return self.seeds([name for pair in pairs for name in pair])

    def score(self, name: str, protocol: str, seeds: Sequence[int] | None = None) -> Estimate:
        """mIoU of a variant over `seeds`, by default all that it was run with."""
        return self.scores(name, protocol, seeds).mean()

    def gain(
        self,
        pairs: Sequence[Pair],
        protocol: str,
        classes: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Estimate | None:
        """Mean over the pairs of the paired difference in mIoU (over `classes` if given); None without common seed.

        seeds: by default all that every pair was run with.
        """
        seeds = self.shared_seeds(pairs) if seeds is None else seeds
        if not seeds:
            return None
        sides = [tuple(self.scores(name, protocol, seeds) for name in pair) for pair in pairs]
        return pooled_gain(sides, None if classes is None else np.asarray(classes))

    @cached_property
    def differences(self) -> dict[tuple[tuple[Pair, ...], str], Estimate]:
        """Every difference of the comparisons, by its pairs (several: their mean) and protocol.

        p-values are adjusted for all differences under the same protocol.
        """
        sets = dict.fromkeys((pair,) for pair in self.pairs)
        sets |= dict.fromkeys(c.pairs for c in self.comparisons if c.pooled and self.shared_seeds(c.pairs))
        return {
            (pairs, protocol): estimate
            for protocol in PROTOCOLS
            for pairs, estimate in zip(sets, holm([self.gain(pairs, protocol) for pairs in sets]), strict=True)
        }

    def scores(self, name: str, protocol: str, seeds: Sequence[int] | None = None) -> Scores:
        """Class IoU of a variant under a protocol or in a probe, measured and resampled, over `seeds`."""
        seeds = self.seeds([name]) if seeds is None else seeds
        return Scores.of_seeds([self._resampled[name, protocol, seed] for seed in seeds])

    def rare(self, variant: Variant) -> list[int]:
        """Rare classes: those that the study names, else the rarest third of those in the evaluated split."""
        if self.named_rare:
            return [variant.spec.classes.index(name) for name in self.named_rare]
        present = [k for k in frequent_first(variant) if variant.class_share[k] > 0]
        return present[-max(1, len(present) // 3) :]

    @cached_property
    def _resampled(self) -> dict[tuple[str, str, int], Scores]:
        """Scores of every run by (variant, protocol or probe, seed), as those of one seed."""
        return {
            (run.name, protocol, run.seed): scores(Counts.of_seeds([counts]), variant.blocks)
            for variant in self.ran
            for run in variant.runs
            for protocol, counts in (run.counts | run.probes).items()
        }


def frequent_first(variant: Variant) -> list[int]:
    """Classes by their share of the evaluated split; equal shares in class order."""
    return [int(k) for k in np.argsort(-variant.class_share, kind="stable")]


def chosen_study(root: Path) -> Study:
    """The benchmarks and seeds of params.yaml, each compared with its `baseline` if that is chosen too.

    Raises PipelineError, naming the file and the stage to rerun, for a missing, unreadable or inconsistent file.
    """
    project, layout = load_project(root), Layout(root)
    benchmarks = {name: load_resolved(_existing(layout, layout.resolved(name), "plan")) for name in project.benchmarks}
    titles = _titles(list(benchmarks.values()))
    variants = {}
    for name, benchmark in benchmarks.items():
        spec, folder = get_dataset(benchmark.dataset.name), layout.prepared(benchmark.dataset.name)
        _existing(layout, folder / "dataset.json", f"preprocess of {spec.name}")
        runs = tuple(read_run(layout, benchmark, seed) for seed in sorted(project.seeds))
        variants[name] = Variant(name, titles[name], name, benchmark, spec, runs, Prepared(folder))
    _require_same_images(layout, variants.values())
    pairs = tuple((b.baseline, name) for name, b in benchmarks.items() if b.baseline in benchmarks)
    of_memory = all(benchmarks[after].memory and not benchmarks[before].memory for before, after in pairs)
    question = "What does the memory add?" if of_memory else "What differs from the baselines?"
    return Study(
        title=question if pairs else "Results of the chosen benchmarks",
        description="",
        variants=variants,
        comparisons=(Comparison("gain", question, pairs),) if pairs else (),
        settings=_shared_settings([(benchmarks[before], benchmarks[after]) for before, after in pairs]),
        published=published_benchmarks(root),
        ablation=project.ablation,
        references={name: found for name in variants if (found := read_reference(root, name))},
    )


def recorded_study(root: Path, plan: StudyPlan) -> Study:
    """A study as far as there are records of its configurations.

    Raises PipelineError when there is none, when one is damaged, or when they were not measured on the same images.
    """
    folder, config, size = plan.records(root), plan.config, plan.config.sizes[plan.size]
    found: dict[str, list[Run]] = {name: [] for name in config.variants}
    foreign = []
    for name, seed in plan.runs:
        run = read_record(folder, name, seed)
        if run is not None and run.is_of(plan.benchmarks[name]):
            found[name].append(run)
        elif run is not None:
            foreign.append(f"{name}-{seed}")
    if not any(found.values()):
        command = f"python -m pipeline study {plan.name} --size {plan.size}"
        raise PipelineError(f"{folder}: no result of this configuration; run `{command}` first")
    variants = {}
    for name, variant in config.variants.items():
        benchmark, runs = plan.benchmarks[name], tuple(sorted(found[name], key=lambda run: run.seed))
        spec = get_dataset(benchmark.dataset.name)
        variants[name] = Variant(name, variant.title, variant.group, benchmark, spec, runs)
    _require_same_images(Layout(root), variants.values(), folder)
    comparisons = tuple(Comparison(key, c.question, c.pairs, c.note, c.pooled) for key, c in config.comparisons.items())
    settings = (
        f"Settings are those of `params/{config.benchmark}.yaml`, changed by `studies/{plan.name}.yaml`. {size.note}"
    )
    return Study(
        title=config.title,
        description=size.description,
        variants=variants,
        comparisons=comparisons,
        settings=settings.strip(),
        named_rare=config.rare_classes,
        planned=plan.runs,
        foreign=tuple(foreign),
    )


def _existing(layout: Layout, path: Path, stage: str) -> Path:
    if not path.is_file():
        name = path.relative_to(layout.root)
        raise PipelineError(f"{name}: no such file; rerun the stage {stage}: `dvc repro`")
    return path


def _require_same_images(layout: Layout, variants: Iterable[Variant], records: Path | None = None) -> None:
    """Raise PipelineError unless all runs on one split were measured on the same data: differences are paired."""
    first: dict[tuple[str, str], Run] = {}
    for variant in variants:
        for run in variant.runs:
            other = first.setdefault((variant.spec.name, run.split), run)
            if (run.ids, run.data_fingerprint) == (other.ids, other.data_fingerprint):
                continue
            problem = f"other images than {other.name}, seed {other.seed}, so the two cannot be compared"
            if run.evaluation is not None:
                raise run.evaluation.error("per_image.npz", problem)
            path = record_path(records or layout.root, run.name, run.seed)
            raise PipelineError(f"{path}: {problem}; delete the record of one of them and run the study again")


def _titles(benchmarks: Sequence[Benchmark]) -> dict[str, str]:
    """The shortest kind of title that differs between all benchmarks, by id."""
    datasets = len({b.dataset.name for b in benchmarks}) > 1
    for with_encoder in (False, True):
        titles = {}
        for b in benchmarks:
            parts = [framework(b), *[b.encoder.name] * with_encoder, *[b.dataset.name] * datasets]
            titles[b.id] = ", ".join(parts) + (" + memory" if b.memory else "")
        if len(set(titles.values())) == len(benchmarks):
            return titles
    return {b.id: b.id for b in benchmarks}


def _shared_settings(pairs: Sequence[tuple[Benchmark, Benchmark]]) -> str:
    """Whether the sides of trained pairs differ in more than the memory and the weights of the losses."""
    if not pairs or any(side.mode == "import" for pair in pairs for side in pair):
        return ""
    differing = []
    for before, after in pairs:
        keys = [key for key in changed_keys(before, after) if key.partition(".")[0] not in ("memory", "loss")]
        differing += [f"`{after.id}` differs from its baseline in `{key}`" for key in keys]
    if differing:
        return f"{'; '.join(differing)}: part of a difference may come from there."
    return (
        "The two sides of a pair share every setting but those of the memory and the losses. None was tuned for "
        "either, so part of a difference may come from which side they suit better."
    )
