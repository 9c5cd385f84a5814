"""Stage `evaluate-msflip`: single-scale and multi-scale + flip scores of one trained benchmark and seed.

Usage: python -m stages.evaluate_msflip BENCHMARK SEED
"""

import sys

from pipeline.config import load_project, load_resolved
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.layout import Layout
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import process_group
from pipeline.runtime.launch import relaunch_with_torchrun
from pipeline.tracking import stage_run
from stages import ROOT, stage

if __name__ == "__main__":
    benchmark_id, seed = sys.argv[1], int(sys.argv[2])
    with stage("evaluate-msflip", *sys.argv[1:]):
        runtime = load_project(ROOT).runtime
        benchmark = load_resolved(Layout(ROOT).resolved_for("evaluate", benchmark_id))
        if relaunch_with_torchrun(runtime, "stages.evaluate_msflip", sys.argv[1:]):
            sys.exit()
        with (
            process_group(resolve_device(runtime.device)),
            stage_run(ROOT, benchmark, seed, "evaluate-msflip", runtime),
        ):
            evaluate_benchmark(ROOT, benchmark, seed, runtime)
