"""Resolve and check everything before any work: what `dvc repro` is going to run.

The plan is the first stage. It lays the ablation over the chosen benchmarks, validates each against its dataset and
builds its model without weights (meta device), so that a typo, an encoder that cannot be dilated or a crop that does
not fit stops here. Its outputs are what later stages depend on: a benchmark whose resolved form did not change is not
trained again, whichever line of `params.yaml` was edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoints.imagenet import imagenet_names
from pipeline.checkpoints.planned import weights_of, write_planned_weights
from pipeline.config import (
    Benchmark,
    Project,
    for_evaluation,
    for_training,
    load_benchmark,
    load_project,
    resolved_yaml,
)
from pipeline.config.compilable import compile_problem
from pipeline.config.parse import nearest
from pipeline.config.schema import SourceConfig
from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.planned import write_planned_datasets
from pipeline.errors import PipelineError
from pipeline.files import new_file
from pipeline.models import build_segmentor


@dataclass(frozen=True)
class PlannedBenchmark:
    """A valid benchmark and the size of its model."""

    benchmark: Benchmark
    parameters: int


def make_plan(root: Path) -> tuple[Project, list[PlannedBenchmark]]:
    """The project and its chosen benchmarks. Raises PipelineError that lists every problem of every file."""
    project = load_project(root)
    planned, problems = [], []
    repeated = sorted({b for b in project.benchmarks if project.benchmarks.count(b) > 1})
    if repeated:
        problems.append(f"params.yaml: benchmarks: {', '.join(repeated)} stands more than once; name each once")
    for name in sorted(project.sources):
        try:
            source = project.sources[name]
            get_dataset(name, source.images if isinstance(source, SourceConfig) else None)
        except PipelineError as error:
            problems.append(f"params.yaml: sources: {error}")
    for benchmark_id in dict.fromkeys(project.benchmarks):
        try:
            planned.append(_check(root, load_benchmark(root, benchmark_id, project.ablation)))
        except PipelineError as error:
            problems.append(str(error))
    problems += _weight_problems(root, project, planned)
    problems += _seed_problems(project, planned)
    problems += [p for item in planned if (p := compile_problem(item.benchmark, project.runtime))]
    if problems:
        raise PipelineError("\n".join(problems))
    return project, planned


def write_plan(root: Path, out_dir: Path) -> str:
    """Write resolved benchmarks, `datasets.json` and `weights.json` (what to fetch, from where); return it as text."""
    project, planned = make_plan(root)
    out_dir.mkdir(parents=True, exist_ok=True)
    for item in planned:
        parts = {"": item.benchmark, "train": for_training(item.benchmark), "evaluate": for_evaluation(item.benchmark)}
        for folder, part in parts.items():
            path = out_dir / folder / f"{part.id}.yaml"
            with new_file(path) as stream:
                stream.write(resolved_yaml(part).encode())
    write_planned_datasets(out_dir, [item.benchmark for item in planned], project.sources)
    write_planned_weights(out_dir, [item.benchmark for item in planned], project.weights)
    return describe(project, planned)


def describe(project: Project, planned: list[PlannedBenchmark]) -> str:
    """The plan as a table for the terminal."""
    width = max(len(item.benchmark.id) for item in planned)
    lines = [f"{'benchmark':{width}}  dataset       encoder                  memory  epochs  parameters"]
    for item in planned:
        b = item.benchmark
        epochs = "import" if b.mode == "import" else b.schedule.epochs
        lines.append(
            f"{b.id:{width}}  {b.dataset.name:12}  {b.encoder.name:23}  {'yes' if b.memory else 'no':6}"
            f"  {epochs:>6}  {item.parameters / 1e6:8.1f} M"
        )
    seeds = ", ".join(map(str, project.seeds))
    imports = sum(item.benchmark.mode == "import" for item in planned)
    trainings = f"{(len(planned) - imports) * len(project.seeds)} trainings"
    published = f", {imports} published checkpoint{'s' if imports > 1 else ''}" if imports else ""
    return "\n".join([*lines, f"seeds: {seeds}; {trainings}{published}"])


def _check(root: Path, benchmark: Benchmark) -> PlannedBenchmark:
    """What needs the dataset, the other files or the model to be known."""
    where = f"params/{benchmark.id}.yaml"
    spec = get_dataset(benchmark.dataset.name)
    if benchmark.memory is not None and len(spec.classes) < 2:
        raise PipelineError(f"{where}: memory: {spec.name} has {len(spec.classes)} class; a memory needs at least two")
    problems = [*_split_problems(benchmark, spec), *_size_problems(benchmark, spec)]
    if benchmark.mode == "import" and not (benchmark.published and benchmark.published.checkpoints):
        problems.append("mode: import needs the address of a checkpoint in `published.checkpoints`")
    try:
        weights_of(benchmark, {})
    except PipelineError as error:
        problems.append(str(error))
    if benchmark.baseline is not None:
        known = sorted(path.stem for path in (root / "params").glob("*.yaml"))
        if benchmark.baseline not in known:
            near = nearest(benchmark.baseline, known)
            problems.append(f"baseline: no params/{benchmark.baseline}.yaml{f'; did you mean {near}?' if near else ''}")
    if problems:
        raise PipelineError("\n".join(f"{where}: {problem}" for problem in problems))
    try:
        with torch.device("meta"):
            model = build_segmentor(benchmark, len(spec.classes), pretrained=False)
    except PipelineError as error:
        raise PipelineError(f"{where}: {error}") from error
    return PlannedBenchmark(benchmark, sum(p.numel() for p in model.parameters()))


def _split_problems(benchmark: Benchmark, spec: DatasetSpec) -> list[str]:
    data = benchmark.dataset
    named = [
        *(("train_splits", split) for split in data.train_splits),
        ("validation_split", data.validation_split),
        ("evaluation_split", data.evaluation_split),
    ]
    unknown = [
        f"dataset.{key}: {spec.name} has no split {split!r}; it has {', '.join(spec.splits)}"
        for key, split in named
        if split not in spec.splits
    ]
    labelled = ", ".join(split for split in spec.splits if split not in spec.unlabelled_splits)
    return unknown + [
        f"dataset.{key}: the labels of {spec.name} {split} are not public; choose from {labelled}"
        for key, split in named
        if split in spec.unlabelled_splits and key != "evaluation_split"
    ]


def _weight_problems(root: Path, project: Project, planned: list[PlannedBenchmark]) -> list[str]:
    """Keys of `weights` that mean nothing, and local files in use that are not there."""
    known = [*imagenet_names(), *sorted(path.stem for path in (root / "params").glob("*.yaml"))]
    problems = []
    for name in project.weights:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean `{near}`?" if near else f"ImageNet weights are {', '.join(imagenet_names())}"
            problems.append(f"params.yaml: weights.{name}: neither a benchmark nor ImageNet weights; {hint}")
    used = [weights_of(item.benchmark, project.weights) for item in planned]
    missing = {w.name: w.file for w in used if w.file and not (root / Path(w.file).expanduser()).is_file()}
    return problems + [f"params.yaml: weights.{name}: {file}: no such file" for name, file in missing.items()]


def _seed_problems(project: Project, planned: list[PlannedBenchmark]) -> list[str]:
    imported = [item.benchmark.id for item in planned if item.benchmark.mode == "import"]
    if len(project.seeds) == 1 or not imported:
        return []
    return [
        f"params.yaml: seeds: {list(project.seeds)}, but {', '.join(imported)} "
        f"{'is' if len(imported) == 1 else 'are'} imported (mode: import), and a published checkpoint has no seeds; "
        "give one seed, or train instead with `ablation: {mode: train}`"
    ]


def _size_problems(benchmark: Benchmark, spec: DatasetSpec) -> list[str]:
    """A crop larger than any training image can get would be mostly padding: surely not what was meant."""
    augmentation, crop = benchmark.augmentation, benchmark.augmentation.crop
    if augmentation.resize is not None:
        resize = augmentation.resize
        largest = resize.size if resize.size is not None else (resize.long or 0, resize.long or 0)
    elif spec.image_size is not None:
        largest = spec.image_size
    else:
        return []
    reach = tuple(int(side * augmentation.scale[1]) for side in largest)
    if crop[0] <= reach[0] and crop[1] <= reach[1]:
        return []
    return [
        f"augmentation.crop: {list(crop)} is larger than the largest training image, {list(reach)} "
        f"(augmentation.resize or the prepared size, times scale {augmentation.scale[1]}); use a smaller crop"
    ]
