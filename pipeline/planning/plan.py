"""What will run: the chosen benchmarks, resolved, checked, and with what they need.

The stage `plan`, `check`, `row` and `rows` ask `plan_benchmarks`, which lays the ablation over the chosen benchmarks,
checks each against its dataset and builds its network without weights, so that a mistake is found before any work.
Later stages depend on single files of `runs/plan`: a benchmark whose resolved form did not change is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints.planned import write_planned_weights
from pipeline.config import (
    Benchmark,
    Project,
    for_evaluation,
    for_training,
    load_benchmark,
    load_project,
    resolved_yaml,
)
from pipeline.datasets.planned import write_planned_datasets
from pipeline.errors import PipelineError
from pipeline.files.storage import new_file
from pipeline.planning.needs import Need, data_need, weights_need
from pipeline.planning.validate import benchmark_problems, checked_parameters, choice_problems, project_problems


@dataclass(frozen=True)
class Planned:
    """A valid benchmark, the size of its network, and what it starts from."""

    benchmark: Benchmark
    parameters: int
    data: Need
    weights: Need | None


def plan_benchmarks(root: Path, project: Project) -> tuple[list[Planned], list[str]]:
    """The benchmarks that `project` chooses, as far as they can run, and the problems of all of them, one a line."""
    planned, problems = [], project_problems(root, project)
    for benchmark_id in dict.fromkeys(project.benchmarks):
        try:
            benchmark = load_benchmark(root, benchmark_id, project.ablation)
            found = benchmark_problems(root, benchmark) or choice_problems(root, project, benchmark)
            if not found:
                parameters = checked_parameters(benchmark, project.runtime)
                data = data_need(root, project, benchmark.dataset.name)
                weights = weights_need(root, project, benchmark, parameters)
                found = [need.problem for need in (data, weights) if need is not None and need.problem]
                planned += [] if found else [Planned(benchmark, parameters, data, weights)]
            problems += found
        except PipelineError as error:
            problems += str(error).splitlines()
    return planned, list(dict.fromkeys(problems))


def write_plan(root: Path, out_dir: Path) -> str:
    """Stage `plan`: write resolved benchmarks, and the data and weights to fetch; returns the plan as text.

    Raises PipelineError that lists every problem of what is chosen.
    """
    project = load_project(root)
    planned, problems = plan_benchmarks(root, project)
    if problems:
        raise PipelineError("\n".join(problems))
    write_planned(project, planned, out_dir)
    return describe(project, planned)


def write_planned(project: Project, planned: Sequence[Planned], out_dir: Path) -> None:
    """The files of `runs/plan`."""
    benchmarks = [item.benchmark for item in planned]
    for benchmark in benchmarks:
        parts = {"": benchmark, "train": for_training(benchmark), "evaluate": for_evaluation(benchmark)}
        for folder, part in parts.items():
            with new_file(out_dir / folder / f"{part.id}.yaml") as stream:
                stream.write(resolved_yaml(part).encode())
    write_planned_datasets(out_dir, benchmarks, project.sources)
    write_planned_weights(out_dir, benchmarks, project.weights)


def describe(project: Project, planned: Sequence[Planned]) -> str:
    """The plan as a table for the terminal, and what will be downloaded from where."""
    heads = ("benchmark", "dataset", "encoder", "memory", "epochs", "parameters", "data", "weights")
    rows = [heads]
    for item in planned:
        b = item.benchmark
        rows.append(
            (
                *(b.id, b.dataset.name, b.encoder.name, "yes" if b.memory else "no"),
                "import" if b.mode == "import" else str(b.schedule.epochs),
                f"{item.parameters / 1e6:.1f} M",
                *(str(item.data), str(item.weights) if item.weights else "-"),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    imports = sum(item.benchmark.mode == "import" for item in planned)
    counts = {"trainings": (len(planned) - imports) * len(project.seeds), "imported checkpoints": imports}
    work = ", ".join(f"{number} {noun}" for noun, number in counts.items() if number)
    lines.append(f"seeds {', '.join(map(str, project.seeds))}: {work}")
    downloads = {n.place: n for item in planned for n in (item.data, item.weights) if n is not None and not n.present}
    return "\n".join([*lines, *(f"{need}: {place}" for place, need in downloads.items())])
