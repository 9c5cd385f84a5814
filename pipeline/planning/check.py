"""`python -m pipeline check`: every problem of the configuration at once, else what `dvc repro` would do and take."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.checkpoints.planned import weights_of
from pipeline.config import Benchmark, Project, benchmark_ids, load_valid_project
from pipeline.config.study import load_study, valid_variants
from pipeline.errors import PipelineError
from pipeline.planning.plan import describe, write_planned
from pipeline.planning.validate import (
    PlannedBenchmark,
    benchmark_problems,
    checked_choice,
    file_problems,
    name_problems,
    study_class_problems,
)


def check(root: Path) -> str:
    """The plan for the terminal; nothing is written under `root`.

    The models of the chosen benchmarks are built; of every other file of params/, and of studies/, it is checked that
    what it names exists and fits its dataset.
    Raises PipelineError with all problems, one a line.
    """
    project, problems = load_valid_project(root)
    planned: list[PlannedBenchmark] = []
    if project is not None:
        planned, more = checked_choice(root, project)
        problems += more
    chosen = project.benchmarks if project is not None else ()
    for benchmark_id in benchmark_ids(root):
        if benchmark_id not in chosen:
            problems += file_problems(root, benchmark_id)
    for path in sorted((root / "studies").glob("*.yaml")):
        problems += _study_problems(root, path.stem)
    if problems or project is None:
        raise PipelineError("\n".join(dict.fromkeys(problem.replace(f"{root}/", "") for problem in problems)))
    return f"{describe(project, planned)}\n\n{_outlook(root, project, planned)}"


def _study_problems(root: Path, name: str) -> list[str]:
    """Problems of `studies/<name>.yaml` in all its sizes, without building a model.

    What is wrong with the study's benchmark itself, which an ablation may hide elsewhere, is not told for each variant.
    """
    problems: list[str] = []
    try:
        config = load_study(root, name)
        file, known = f"params/{config.benchmark}.yaml", file_problems(root, config.benchmark)
        problems += known
        problems += study_class_problems(root, name, config)
        for size in config.sizes:
            benchmarks, found = valid_variants(root, name, config, size)
            problems += found
            for variant, benchmark in benchmarks.items():
                where = f"studies/{name}.yaml: variants.{variant} ({size})"
                of_variant = benchmark_problems(root, benchmark, file) + name_problems(benchmark, file)
                problems += [line.replace(file, where, 1) for line in of_variant if line not in known]
    except PipelineError as error:
        problems += str(error).splitlines()
    return problems


def _outlook(root: Path, project: Project, planned: Sequence[PlannedBenchmark]) -> str:
    """Stages, time and disk. What is missing here, such as a dataset without public address, is a problem as well."""
    from pipeline.planning.estimate import (
        data_bytes,
        machine_speed,
        stage_seconds,
        weight_bytes,
    )  # imports torch, which takes seconds
    from pipeline.planning.present import data_presence, weights_presence
    from pipeline.planning.row_describe import size_text, time_text
    from pipeline.planning.row_plan import RowPlan
    from pipeline.runtime.device import resolve_device

    def row(benchmark: Benchmark) -> RowPlan:
        weights = weights_presence(root, weights_of(benchmark, project.weights))
        data = data_presence(root, project, benchmark.dataset.name)
        return RowPlan(root, project, benchmark, (), project.seeds, data, weights)

    plans = {item.benchmark.id: row(item.benchmark) for item in planned}
    obstacles = dict.fromkeys(plan.obstacle for plan in plans.values() if plan.obstacle is not None)
    if obstacles:
        raise PipelineError("\n".join(obstacles))
    stages, lines = _stages(root, project, planned)
    speed = machine_speed(root, resolve_device(project.runtime.device))
    seconds = sum(stage_seconds(stage, plans, speed) for stage in stages)
    lines.append(f"time: about {time_text(seconds)} of training and evaluation, {speed.basis}")
    datasets = {plan.spec.name: data_bytes(plan) for plan in plans.values()}
    unknown = [name for name, (size, _) in datasets.items() if size is None]
    data = sum(size or 0 for size, _ in datasets.values())
    forms = "; ".join(f"{name}: {basis}" for name, (_, basis) in datasets.items())
    weights = weight_bytes(list(plans.values()))
    lines.append(
        f"disk: about {size_text(data + weights)}, {size_text(data)} of data ({forms}) and {size_text(weights)} of "
        f"weights; {size_text(shutil.disk_usage(root).free)} are free. DVC's cache takes as much again where the file "
        "system cannot share blocks"
    )
    lines += [f"disk: {name}: its owners announce no size" for name in unknown]
    return "\n".join(lines)


def _stages(root: Path, project: Project, planned: Sequence[PlannedBenchmark]) -> tuple[list[str], list[str]]:
    """Stages that will or may run, and the lines that say so."""
    from pipeline.planning.forecast import forecast

    with tempfile.TemporaryDirectory() as folder:
        write_planned(project, planned, Path(folder))
        try:
            found = forecast(root, Path(folder))
        except PipelineError as error:
            pairs = [f"{item.benchmark.id}-{seed}" for item in planned for seed in project.seeds]
            every = [f"{stage}@{pair}" for stage in ("train", "evaluate-msflip") for pair in pairs]
            return every, [f"stages: what is up to date is unknown ({error}); taken as if every stage ran"]
    width = max(len(item.stage) for item in found)
    lines = [
        f"{'stage':{width}}  dvc repro",
        *(f"{i.stage:{width}}  {i.state}: {i.reason}".rstrip(": ") for i in found),
    ]
    if any(item.state != "up to date" for item in found):
        lines.append("What ran before with equal inputs is restored from DVC's cache instead of run.")
    return [item.stage for item in found if item.state != "up to date"], lines
