"""Give every result on disk a run: a stage that DVC restored from its cache did not run here, so it has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.layout import Layout
from pipeline.results.record import EvaluationFiles, TrainingFiles, finished_trainings
from pipeline.results.run import as_tested
from pipeline.tracking.identity import TrackedStage, describe, find_runs, open_parent, supersede
from pipeline.tracking.publish import OpenRun, milliseconds, publish
from pipeline.tracking.store import Store, load_mlflow, open_store


def sync(root: Path) -> list[str]:
    """Create the runs that results under `root` lack, tagged `restored`; returns one line for each. Idempotent.

    A result lacks a run when none with its benchmark, seed, run key and stage has the tag `complete`: the stage came
    from DVC's cache, or the store failed while it ran. Raises PipelineError for a missing or damaged file of a result.
    """
    layout = Layout(root)
    finished = [stage for training in finished_trainings(layout) for stage in _finished_stages(training)]
    with open_store(root) as store:
        return [line for stage in finished if (line := _restore(store, layout, *stage)) is not None]


def _finished_stages(training: TrainingFiles) -> Iterator[tuple[TrackedStage, int, int]]:
    """The training, then its evaluation if there is one, with their start and end in ms since 1970."""
    record, cost = training.record, training.cost
    stage = TrackedStage(
        name="train",
        benchmark=training.config,
        seed=training.seed,
        run_key=record.run_key,
        fingerprint=record.data_fingerprint,
        weights=record.weights,
        precision=record.precision,
        device=cost.device,
        commit=cost.commit,
        dirty=cost.dirty,
    )
    ended = milliseconds(cost.finished)
    yield stage, milliseconds(cost.started), ended
    files = EvaluationFiles(training.layout, training.benchmark, training.seed)
    if files.is_complete and files.record.run_key == record.run_key:  # else of an earlier training: it will be replaced
        evaluated = as_tested(training.config, files.record)
        stage = replace(stage, name="evaluate-msflip", benchmark=evaluated, device=files.cost.device)
        yield stage, ended, ended + int(1000 * files.cost.seconds)


def _restore(store: Store, layout: Layout, stage: TrackedStage, started: int, ended: int) -> str | None:
    """Create the run of a stage unless there is a complete one."""
    client = store.client
    tags = stage.further_tags() | {"restored": "true"}
    parent = open_parent(store, stage, tags, started).info
    earlier = find_runs(client, parent.experiment_id, stage.tags())
    if any(run.data.tags.get("complete") == "true" for run in earlier):
        return None
    tags |= stage.tags() | {"mlflow.parentRunId": parent.run_id}
    run_id = client.create_run(parent.experiment_id, started, tags, run_name=stage.name).info.run_id
    mlflow = load_mlflow()
    mlflow.start_run(run_id=run_id)  # models are logged to the active run
    status = "FAILED"
    try:
        describe(client, run_id, stage)
        publish(OpenRun(client, run_id, parent.run_id, stage), layout)
        supersede(client, earlier, run_id)
        status = "FINISHED"
    finally:
        mlflow.end_run(status)
        client.set_terminated(run_id, status, ended)
        client.set_terminated(parent.run_id, status, ended)
    return f"{stage.name} {stage.benchmark.id} seed {stage.seed}: restored as run {run_id}"
