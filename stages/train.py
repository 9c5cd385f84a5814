"""Stage `train`: train one benchmark with one seed; resumes by itself after an interruption.

Usage: python -m stages.train BENCHMARK SEED
"""

import sys

from pipeline.config import load_project, load_resolved
from pipeline.layout import Layout
from pipeline.tracking import stage_run
from pipeline.training.run import train_benchmark
from stages import ROOT, stage

if __name__ == "__main__":
    benchmark_id, seed = sys.argv[1], int(sys.argv[2])
    with stage():
        runtime = load_project(ROOT).runtime
        benchmark = load_resolved(Layout(ROOT).resolved_for("train", benchmark_id))
        with stage_run(ROOT, benchmark, seed, "train", runtime) as run:
            train_benchmark(ROOT, benchmark, seed, runtime, run.log)
