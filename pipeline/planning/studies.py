"""The command `study`: train and evaluate what a study lacks, then write its report.

The same command in several shells, or on several GPUs, shares the work. Records in Git (see `results.run`) say what is
there already.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.checkpoints.planned import weights_of
from pipeline.config import Project, for_evaluation, for_training, load_project
from pipeline.config.schema import Benchmark, RuntimeConfig
from pipeline.config.study import StudyPlan, load_plan
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.planned import path_and_images
from pipeline.datasets.prepare import prepare
from pipeline.errors import PipelineError
from pipeline.files.locks import awaited, claimed
from pipeline.layout import Layout
from pipeline.planning.validate import rare_class_problems
from pipeline.results.run import has_record, keep_record, read_run
from pipeline.runtime.provenance import loaded_code


def study(root: Path, options: argparse.Namespace, arguments: list[str]) -> None:
    """Run the study and write its report, as far as `options` ask for it. arguments: as typed, for the records."""
    from pipeline.reporting.report import write_study_report

    plan = load_plan(root, options.name, options.size)
    if problems := rare_class_problems(root, plan.name, plan.config):
        raise PipelineError("\n".join(problems))
    print(describe(root, plan), flush=True)
    if options.dry_run:
        return
    failed: list[str] = []
    if not options.report_only:
        command = shlex.join(["python", "-m", "pipeline", *arguments])
        failed = run_study(root, plan, load_project(root), command, options.at_most)
    if options.report_only or any(is_recorded(root, plan, *run) for run in plan.runs):
        print(f"report: {write_study_report(root, plan).relative_to(root) / 'report.html'}")
    else:
        print("no result yet to report on")
    if failed:
        raise PipelineError("\n".join([f"{len(failed)} runs failed:", *failed]))


def describe(root: Path, plan: StudyPlan) -> str:
    """Every run in its order, and whether its result is recorded."""
    states = ["recorded" if is_recorded(root, plan, *run) else "to run" for run in plan.runs]
    lines = [f"studies/{plan.name}.yaml, size {plan.size}: {plan.config.sizes[plan.size].description}"]
    lines += [f"  {state:8}  {variant}, seed {seed}" for state, (variant, seed) in zip(states, plan.runs, strict=True)]
    return "\n".join([*lines, f"{states.count('recorded')} recorded, {states.count('to run')} to run"])


def is_recorded(root: Path, plan: StudyPlan, variant: str, seed: int) -> bool:
    """Whether the record of this very configuration, trained and tested alike, is there."""
    return has_record(plan.records(root), variant, seed, plan.benchmarks[variant])


def run_study(root: Path, plan: StudyPlan, project: Project, command: str, at_most: int | None = None) -> list[str]:
    """Run what has no record yet, in the plan's order; returns the runs that failed, each with the reason.

    An interrupted run resumes when its turn comes again. A run that another process works on is left to it, and one
    that fails does not keep the others from their turn. at_most: stop after that many runs. Raises PipelineError for
    several devices: a study shares out whole runs.
    """
    runtime = project.runtime
    if runtime.devices * runtime.nodes > 1:
        raise PipelineError(
            f"params.yaml: runtime.devices: {runtime.devices}, runtime.nodes: {runtime.nodes}, but a study gives each "
            "training one device; set both to 1 and start the same command once per GPU (CUDA_VISIBLE_DEVICES)"
        )
    require_no_weight_file(f"studies/{plan.name}.yaml: variants", plan.benchmarks)
    prepare_data(root, plan.benchmarks.values(), project)
    # Before the work: the records name the commit that was loaded. Of params.yaml a study reads where the data is and
    # how to run; what of that can move a result is part of the record.
    code = loaded_code(root, without=("params.yaml",))
    claims = root / "runs" / "studies" / "claims"
    done, failed = 0, []
    for number, (variant, seed) in enumerate(plan.runs, start=1):
        if done == at_most:
            break
        benchmark = plan.benchmarks[variant]
        with claimed(claims / f"{benchmark.id}-{seed}") as mine:
            if not mine or is_recorded(root, plan, variant, seed):
                continue
            print(f"[{number}/{len(plan.runs)}] {variant}, seed {seed}", flush=True)
            try:
                if benchmark.start is not None:
                    begun = next(each for each in plan.benchmarks.values() if each.id == benchmark.start.benchmark)
                    with awaited(claims / f"{begun.id}-{seed}", f"{begun.id}, seed {seed}"):
                        train_variant(root, begun, seed, runtime)
                run_variant(root, benchmark, seed, runtime)
            except PipelineError as error:
                failed.append(f"{variant}, seed {seed}: {error}")
                print(f"failed: {failed[-1]}", file=sys.stderr, flush=True)
                continue
            _keep(root, plan, variant, seed, command, code)
            done += 1
    print(f"{done} runs done here")
    return failed


def run_variant(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> None:
    """What the stages train and evaluate-msflip do for a benchmark, tracked alike."""
    from pipeline.evaluation.score import evaluate_benchmark  # torch takes seconds to import
    from pipeline.tracking import stage_run

    train_variant(root, benchmark, seed, runtime)
    evaluation = for_evaluation(benchmark)
    with stage_run(root, evaluation, seed, "evaluate-msflip", runtime):
        evaluate_benchmark(root, evaluation, seed, runtime)


def train_variant(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> None:
    """Train, unless it is done: the evaluation was interrupted, is to be done in another way, or others start here."""
    from pipeline.tracking import stage_run
    from pipeline.training.train import is_trained, train_benchmark

    training = for_training(benchmark)
    if not is_trained(root, training, seed, runtime):
        with stage_run(root, training, seed, "train", runtime) as run:
            train_benchmark(root, training, seed, runtime, run.log)


def _keep(root: Path, plan: StudyPlan, variant: str, seed: int, command: str, code: tuple[str | None, bool]) -> None:
    benchmark = plan.benchmarks[variant]
    run = replace(read_run(Layout(root), benchmark, seed, variant), commit=code[0], dirty=code[1])
    keep_record(run, plan.records(root), command, get_dataset(benchmark.dataset.name).classes)


def require_no_weight_file(where: str, benchmarks: Mapping[str, Benchmark]) -> None:
    """Raise PipelineError if a training needs a weight file: DVC's stage `download` fetches them, and is not run."""
    for name, benchmark in benchmarks.items():
        if weights_of(benchmark, {}):
            raise PipelineError(
                f"{where}.{name}: encoder.weights: {benchmark.encoder.weights} has to be downloaded, which this "
                "command does not do; use `package:NAME`, or `file:PATH` of a local copy"
            )


def prepare_data(root: Path, benchmarks: Iterable[Benchmark], project: Project) -> None:
    """Fetch and prepare the datasets of `benchmarks` unless they are there already; processes take turns."""
    layout = Layout(root)
    for name in sorted({benchmark.dataset.name for benchmark in benchmarks}):
        path, images = path_and_images(project.sources.get(name))
        spec = get_dataset(name, images)
        # Not to data/sources: that folder is an output of DVC's stage `download`.
        download(spec, layout.raw(name), path, root / "runs" / "studies" / f"{name}.json")
        prepare(spec, layout.raw(name), layout.prepared(name))
