"""`python -m pipeline study`: what is there, what is missing, and how to get it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.config import load_project
from pipeline.config.study import Plan, load_plan
from pipeline.errors import PipelineError
from pipeline.planning.validate import study_class_problems
from pipeline.results.stored import is_stored, read_stored, result_file


def study(root: Path, options: argparse.Namespace, arguments: list[str]) -> None:
    """Run the study and write its report, as far as `options` ask for it. arguments: as typed, for the record."""
    plan = load_plan(root, options.name, options.size)
    problems = study_class_problems(root, plan.name, plan.config)
    if problems:
        raise PipelineError("\n".join(problems))
    if options.dry_run:
        print(describe(root, plan))
        return
    failed: list[str] = []
    if not options.report_only:
        from pipeline.planning.run_study import command_of, run_study  # torch takes seconds to import

        project = load_project(root)
        print(describe(root, plan), flush=True)
        done, failed = run_study(root, plan, project.runtime, project.sources, command_of(arguments), options.at_most)
        print(f"{done} runs done here")
    from pipeline.reporting.study_report import write_study_report

    if options.report_only or read_stored(root, plan)[0]:
        print(f"report: {write_study_report(root, plan).relative_to(root) / 'report.html'}")
    else:
        print("no result yet to report on")
    if failed:
        raise PipelineError("\n".join([f"{len(failed)} runs failed:", *failed]))


def describe(root: Path, plan: Plan) -> str:
    """Every run in its order, and whether its result is stored."""
    states = ["stored" if is_stored(root, plan, *run) else "to run" for run in plan.runs]
    lines = [f"studies/{plan.name}.yaml, size {plan.size}: {plan.config.sizes[plan.size].description}"]
    lines += [f"  {state}  {variant}, seed {seed}" for state, (variant, seed) in zip(states, plan.runs, strict=True)]
    missing = states.count("to run")
    folder = result_file(root, plan, *plan.runs[0]).parent.relative_to(root)
    return "\n".join([*lines, f"{len(plan.runs) - missing} of {len(plan.runs)} results in {folder}, {missing} to run"])
