"""The verdicts of `verify` as tags of MLflow runs, to filter by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.results.run import Run
from pipeline.tracking.identity import find_runs
from pipeline.tracking.store import open_store


def tag_evaluations(root: Path, runs: Sequence[Run], tags: Mapping[str, Mapping[str, str]]) -> None:
    """Set the tags of each benchmark on the evaluations of its runs; what was not tracked is left out."""
    with open_store(root) as store:
        for run in runs:
            wanted = {
                "benchmark": run.name,
                "seed": str(run.seed),
                "run_key": run.run_key,
                "stage": "evaluate-msflip",
                "evaluation_hash": run.evaluation_hash,
            }
            for experiment in store.client.search_experiments():
                for tracked in find_runs(store.client, experiment.experiment_id, wanted)[:1]:
                    for key, value in tags[run.name].items():
                        store.client.set_tag(tracked.info.run_id, key, value)
