"""Stage `train`: train one benchmark with one seed, or import its published checkpoint (mode import).

Usage: python -m stages.train BENCHMARK SEED

An interrupted training resumes when the stage runs again.
"""

import sys

from pipeline.config import load_project, load_resolved
from pipeline.layout import Layout
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import process_group
from pipeline.runtime.launch import only_training, relaunch_with_torchrun
from pipeline.tracking import stage_run
from pipeline.training.importing import import_benchmark
from pipeline.training.train import train_benchmark
from stages import ROOT, stage

if __name__ == "__main__":
    benchmark_id, seed = sys.argv[1], int(sys.argv[2])
    with stage("train", *sys.argv[1:]), only_training(ROOT, benchmark_id, seed):
        runtime = load_project(ROOT).runtime
        benchmark = load_resolved(Layout(ROOT).resolved_for("train", benchmark_id))
        if benchmark.mode == "train" and relaunch_with_torchrun(runtime, "stages.train", sys.argv[1:]):
            sys.exit()
        with (
            process_group(resolve_device(runtime.device)),
            stage_run(ROOT, benchmark, seed, "train", runtime) as run,
        ):
            if benchmark.mode == "import":
                import_benchmark(ROOT, benchmark, seed, runtime)
            else:
                train_benchmark(ROOT, benchmark, seed, runtime, run.log)
