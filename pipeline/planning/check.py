"""`python -m pipeline check`: every mistake of every configuration file, else what `dvc repro` would run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config import Project, benchmark_ids, load_valid_project
from pipeline.config.study import load_study, valid_variants
from pipeline.datasets.download import DOWNLOAD_AGAIN, changed_file
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.planning.plan import Planned, describe, plan_benchmarks, write_planned
from pipeline.planning.stages import pending_stages
from pipeline.planning.validate import benchmark_problems, file_problems, name_problems, rare_class_problems


def check(root: Path) -> str:
    """The plan for the terminal; nothing is written under `root`.

    The networks of the chosen benchmarks are built. Of all other benchmarks, and of the variants of every study, it is
    checked that what they name exists and fits their dataset. Raises PipelineError with all problems, one a line.
    """
    project, problems = load_valid_project(root)
    planned, found = plan_benchmarks(root, project) if project else ([], [])
    problems += found
    for benchmark_id in benchmark_ids(root):
        if project is None or benchmark_id not in project.benchmarks:
            problems += file_problems(root, benchmark_id)
    for path in sorted((root / "studies").glob("*.yaml")):
        problems += _study_problems(root, path.stem)
    if problems or project is None:
        raise PipelineError("\n".join(dict.fromkeys(problem.replace(f"{root}/", "") for problem in problems)))
    return "\n".join([describe(project, planned), "", _stages(root, project, planned), *_changed_data(root, planned)])


def _changed_data(root: Path, planned: Sequence[Planned]) -> Iterator[str]:
    """One line for each dataset with a file that changed: DVC does not see it."""
    for name in sorted({item.benchmark.dataset.name for item in planned}):
        if changed := changed_file(Layout(root).raw(name)):
            yield f"{name}: {changed} changed since `download` ran, which DVC does not see: run `{DOWNLOAD_AGAIN}`"


def _study_problems(root: Path, name: str) -> list[str]:
    """Of all its sizes, without building a network; a mistake in the study's own benchmark is reported once."""
    problems: list[str] = []
    try:
        config = load_study(root, name)
        file, known = f"params/{config.benchmark}.yaml", file_problems(root, config.benchmark)
        problems += known
        for size in config.sizes:
            benchmarks, found = valid_variants(root, name, config, size)
            problems += found
            for variant, benchmark in benchmarks.items():
                where = f"studies/{name}.yaml: variants.{variant} ({size})"
                of_variant = benchmark_problems(root, benchmark, file) + name_problems(benchmark, file)
                problems += [line.replace(file, where, 1) for line in of_variant if line not in known]
        problems += rare_class_problems(root, name, config)
    except PipelineError as error:
        problems += str(error).splitlines()
    return problems


def _stages(root: Path, project: Project, planned: Sequence[Planned]) -> str:
    """The stages that would run, and why."""
    with tempfile.TemporaryDirectory() as folder:
        write_planned(project, planned, Path(folder))
        try:
            found = pending_stages(root, Path(folder))
        except PipelineError as error:
            return f"which stages are up to date is unknown: {error}"
    width = max(len(stage) for stage in found)
    lines = [f"{'stage':{width}}  dvc repro", *(f"{stage:{width}}  {state}" for stage, state in found.items())]
    if any(state != "up to date" for state in found.values()):
        lines.append("A stage that ran before with equal inputs is restored from DVC's cache.")
    return "\n".join(lines)
