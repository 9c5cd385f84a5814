"""The commands `row` and `rows`: say what will happen, then let it happen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Project, load_project
from pipeline.config.schema import each_once
from pipeline.errors import PipelineError
from pipeline.planning.row_describe import describe_row, describe_rows
from pipeline.planning.row_plan import RowPlan, plan_row
from pipeline.planning.row_run import REPRODUCE, SAVE, choose, execute
from pipeline.results.published import find_row, published_benchmarks, published_rows


def run_row(root: Path, row_id: str, mode: str, seeds: Sequence[int] | None, dry_run: bool) -> None:
    """Print the plan of one row and, unless `dry_run`, run it. Raises PipelineError when it cannot start."""
    project = load_project(root)
    if mode == "import" and seeds is not None and len(seeds) > 1:
        raise PipelineError(f"--seeds: {row_id} is imported, and a published checkpoint has no seeds; use --mode train")
    try:
        each_once(tuple(seeds or ()))
    except ValueError as error:
        raise PipelineError(f"--seeds: {error}") from None
    chosen = tuple(seeds) if seeds else project.seeds if mode == "train" else project.seeds[:1]
    plan = plan_row(root, project, find_row(root, row_id), mode, chosen)
    print(describe_row(plan))
    _go(root, [plan], chosen, mode, f"{row_id}-{mode}", dry_run)


def run_rows(root: Path, dry_run: bool) -> None:
    """Print which rows can be evaluated here and which not and, unless `dry_run`, evaluate them in one run."""
    project = load_project(root)
    seeds = project.seeds[:1]
    plans: list[RowPlan] = []
    left_out: dict[str, str] = {}
    for row in published_rows(published_benchmarks(root)):
        plan = plan_row(root, project, row, "import", seeds)
        if not plan.data.present:
            absent = f"data absent: neither `sources: {{{plan.spec.name}: ...}}` in params.yaml nor {plan.data.path}"
            left_out[row.id] = plan.data.problem or absent
        elif plan.obstacle is not None:
            left_out[row.id] = plan.obstacle
        else:
            plans.append(plan)
    if not plans:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in left_out.items())
        raise PipelineError(
            f"no published row can be run:\n{reasons}\nName a dataset's folder or archive under `sources` in "
            "params.yaml, or let `python -m pipeline row ID` download it where it is public"
        )
    print(describe_rows(plans, left_out))
    _go(root, plans, seeds, "import", "rows", dry_run)


def _go(root: Path, plans: list[RowPlan], seeds: Sequence[int], mode: str, name: str, dry_run: bool) -> None:
    ids = [plan.benchmark.id for plan in plans]
    runs = f"{' '.join(REPRODUCE)} && {' '.join(SAVE)} {name}"
    ablation = " and ablation.mode: train" if mode == "train" else ""
    print(f"then: params.yaml gets benchmarks: [{', '.join(ids)}], seeds: {list(seeds)}{ablation}; {runs}", flush=True)
    for plan in plans:
        if plan.obstacle is not None:
            raise PipelineError(plan.obstacle)
    if dry_run:
        return
    before = chosen_so_far(load_project(root))
    choose(root, ids, seeds, mode)
    execute(root, name)
    print(f"done: reports/report.html, kept as the experiment `{name}`. To return to what was chosen before, put")
    print(f"{before} into params.yaml and run dvc repro, which takes finished results from DVC's cache")


def chosen_so_far(project: Project) -> str:
    """What `choose` overwrites, as params.yaml would say it."""
    mode = project.ablation.get("mode") or "null"
    return f"benchmarks: [{', '.join(project.benchmarks)}], seeds: {list(project.seeds)}, ablation.mode: {mode}"
