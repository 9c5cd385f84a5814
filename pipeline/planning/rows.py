"""The commands `row` and `rows`: evaluate the checkpoints of published rows, or train one.

A row runs as a DVC experiment in a temporary copy of the repository (`dvc exp run --temp -S ...`), so that params.yaml
and the results in the workspace stay as they are. Raw data, unfinished trainings and MLflow runs are shared with the
repository: an interrupted row resumes when the same command is run again.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Benchmark, Project, load_project
from pipeline.config.schema import each_once
from pipeline.errors import PipelineError
from pipeline.planning.needs import data_need
from pipeline.planning.plan import Planned, describe, plan_benchmarks
from pipeline.planning.stages import dvc, run_dvc
from pipeline.results.published import changed_keys, find_row, published_benchmarks, published_rows
from pipeline.runtime.provenance import git_state, why_no_commit


def run_row(root: Path, row_id: str, mode: str, seeds: Sequence[int] | None, dry_run: bool) -> None:
    """Print what running one row takes and, unless `dry_run`, run it. Raises PipelineError when it cannot start."""
    project, row = load_project(root), find_row(root, row_id)
    try:
        each_once(tuple(seeds or ()))
    except ValueError as error:
        raise PipelineError(f"--seeds: {error}") from None
    if mode == "import" and seeds is not None and len(seeds) > 1:
        raise PipelineError(f"--seeds: {row_id} is imported, and a published checkpoint has no seeds; use --mode train")
    chosen = tuple(seeds or (project.seeds if mode == "train" else project.seeds[:1]))
    choice = _choice(project, [row_id], chosen, mode)
    planned, problems = plan_benchmarks(root, choice)
    if problems:
        raise PipelineError("\n".join(problems))
    print(f"{describe(choice, planned)}\n{_published(row)}")
    if changes := changed_keys(row, planned[0].benchmark):
        print(f"ablation: params.yaml changes {', '.join(changes)}, so the result is not compared with the publication")
    _run(root, choice, mode, f"{row_id}-{mode}", dry_run)


def run_rows(root: Path, dry_run: bool) -> None:
    """Print which rows can be evaluated here and which not and, unless `dry_run`, evaluate them in one run."""
    project = load_project(root)
    planned: list[Planned] = []
    left_out = ""
    for row in published_rows(published_benchmarks(root)):
        data = data_need(root, project, row.dataset.name)  # first, since a plan builds the network
        absent = data.problem or f"{row.dataset.name}: not on this machine; `sources` in params.yaml names no copy"
        found, problems = [], [absent]
        if data.present:
            found, problems = plan_benchmarks(root, _choice(project, [row.id], project.seeds[:1], "import"))
        if problems:
            left_out += f"\n  {row.id}: {'; '.join(problems)}"
        else:
            planned += found
    if not planned:
        raise PipelineError(
            f"no published row can be evaluated:{left_out}\nName a dataset's folder or archive under `sources` in "
            "params.yaml, or run `make row ID=...`, which downloads public data"
        )
    choice = _choice(project, [item.benchmark.id for item in planned], project.seeds[:1], "import")
    print(describe(choice, planned) + (f"\nleft out:{left_out}" if left_out else ""))
    _run(root, choice, "import", "rows", dry_run)


def _choice(project: Project, rows: Sequence[str], seeds: Sequence[int], mode: str) -> Project:
    """params.yaml as the experiment will have it."""
    changes = {"benchmarks": tuple(rows), "seeds": tuple(seeds), "ablation": {**project.ablation, "mode": mode}}
    return project.model_copy(update=changes)


def _published(row: Benchmark) -> str:
    """`published mIoU: 44.39 single scale, 45.97 ms+flip (model zoo)`."""
    parts = []
    for source, scores in (("model zoo", row.published.model_zoo), ("paper", row.published.paper)):
        if scores is not None:
            pairs = ((scores.single_scale, "single scale"), (scores.ms_flip, "ms+flip"))
            parts.append(f"{', '.join(f'{value:.2f} {name}' for value, name in pairs if value is not None)} ({source})")
    return f"published mIoU: {'; '.join(parts)}"


def _run(root: Path, choice: Project, mode: str, name: str, dry_run: bool) -> None:
    changes = [f"benchmarks=[{','.join(choice.benchmarks)}]", f"seeds={list(choice.seeds)}".replace(" ", "")]
    options = [option for change in (*changes, f"++ablation.mode={mode}") for option in ("-S", change)]
    command = ["exp", "run", "--temp", "--name", name, *options]
    print(f"runs: {shlex.join(['dvc', *command])}", flush=True)
    if dry_run:
        return
    if git_state(root)[0] is None:
        raise PipelineError(f"a published row runs as a DVC experiment, which needs a commit: {why_no_commit(root)}")
    if name in dvc(root, "exp", "list", "--name-only").split():
        dvc(root, "exp", "remove", name)  # DVC refuses to replace an experiment; results stay in its cache
    run_dvc(root, *command)
    report = root / "reports" / "published" / f"{name}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    find = ["git", "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}"]
    commit = subprocess.run(find, cwd=root, text=True, capture_output=True, check=True).stdout.split()[0]
    dvc(root, "get", ".", "reports/report.html", "--rev", commit, "--out", str(report), "--force")
    print(f"report: {report.relative_to(root)}")
    print(f"`dvc exp apply {name}` brings weights and results into the workspace, `dvc exp show` compares experiments")
