"""Resolve and check everything before any work: what `dvc repro` is going to run.

The plan is the first stage. It lays the ablation over the chosen benchmarks, validates each against its dataset and
builds its model without weights (meta device), so that a typo, an encoder that cannot be dilated or a crop that does
not fit stops here. Its outputs are what later stages depend on: a benchmark whose resolved form did not change is not
trained again, whichever line of `params.yaml` was edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.checkpoints.planned import write_planned_weights
from pipeline.config import Project, for_evaluation, for_training, load_project, resolved_yaml
from pipeline.datasets.planned import write_planned_datasets
from pipeline.errors import PipelineError
from pipeline.files.storage import new_file
from pipeline.planning.validate import PlannedBenchmark, checked_choice


def make_plan(root: Path) -> tuple[Project, list[PlannedBenchmark]]:
    """The project and its chosen benchmarks. Raises PipelineError that lists every problem of what was chosen."""
    project = load_project(root)
    planned, problems = checked_choice(root, project)
    if problems:
        raise PipelineError("\n".join(dict.fromkeys(problems)))
    return project, planned


def write_plan(root: Path, out_dir: Path) -> str:
    """Make the plan and write it to `out_dir`; return it as text."""
    project, planned = make_plan(root)
    write_planned(project, planned, out_dir)
    return describe(project, planned)


def write_planned(project: Project, planned: Sequence[PlannedBenchmark], out_dir: Path) -> None:
    """Write resolved benchmarks, `datasets.json` and `weights.json` (what to fetch, from where)."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for item in planned:
        parts = {"": item.benchmark, "train": for_training(item.benchmark), "evaluate": for_evaluation(item.benchmark)}
        for folder, part in parts.items():
            path = out_dir / folder / f"{part.id}.yaml"
            with new_file(path) as stream:
                stream.write(resolved_yaml(part).encode())
    write_planned_datasets(out_dir, [item.benchmark for item in planned], project.sources)
    write_planned_weights(out_dir, [item.benchmark for item in planned], project.weights)


def describe(project: Project, planned: Sequence[PlannedBenchmark]) -> str:
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
