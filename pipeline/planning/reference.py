"""The command `reference`: train the chosen benchmarks here and add their scores to `reports/reference`.

The number of threads (OMP_NUM_THREADS) and the kernels (ONEDNN_MAX_CPU_ISA) are those of the process, since torch reads
them when it is loaded; `make reference` runs the command once for each set of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config import load_benchmark, load_project
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.planning.studies import prepare_data, require_no_weight_file, run_variant
from pipeline.results.reference import Reference, read_reference, write_reference
from pipeline.results.run import read_run
from pipeline.runtime.provenance import hardware, loaded_code, why_no_commit


def add_references(root: Path, seeds: Sequence[int]) -> None:
    """Train and evaluate each benchmark of params.yaml with each seed; a finished training is not repeated.

    Raises PipelineError without a commit and for uncommitted changes: a record names the commit that made it.
    """
    project = load_project(root)
    code = loaded_code(root)
    if code[0] is None:
        raise PipelineError(f"a reference record names the commit that made it: {why_no_commit(root)}")
    if code[1]:
        raise PipelineError("uncommitted changes: a reference record names the commit that made it; commit first")
    benchmarks = {name: load_benchmark(root, name, project.ablation) for name in project.benchmarks}
    require_no_weight_file("params.yaml: benchmarks", benchmarks)
    prepare_data(root, benchmarks.values(), project)
    machine, runtime = hardware(), project.runtime.model_copy(update={"mlflow": False})
    # Beside the results of `dvc repro`, which stay as they are; prepared data is shared.
    place = root / "runs" / "reference" / f"{machine['kernels']}, {machine['threads']} threads".replace(", ", "-")
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "data").exists():
        (place / "data").symlink_to(root / "data", target_is_directory=True)
    for seed in seeds:
        for name, benchmark in benchmarks.items():
            print(f"{name}, seed {seed}, {machine['kernels']}, {torch.get_num_threads()} threads", flush=True)
            run_variant(place, benchmark, seed, runtime)
            run = replace(read_run(Layout(place), benchmark, seed), commit=code[0], dirty=False)
            added, known = Reference.of_runs(benchmark, [run]), read_reference(root, name)
            write_reference(root, known.joined(added) if known else added)
