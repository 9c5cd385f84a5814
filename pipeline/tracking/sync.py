"""Give every result on disk a run: one that DVC restored from its cache never ran here, so nothing tracked it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Benchmark, load_resolved
from pipeline.config.parse import parse
from pipeline.layout import Layout
from pipeline.tracking.identity import EVALUATE, TRAIN, Identity, Stage, find_runs
from pipeline.tracking.results import Clock, Target, publish, read_output
from pipeline.tracking.runs import describe
from pipeline.tracking.store import Store, load_mlflow, open_store
from pipeline.tracking.tree import open_parent, supersede


@dataclass(frozen=True)
class _Result:
    """A finished stage as its files tell it."""

    stage: Stage
    identity: Identity
    cost: dict[str, Any]
    started: int  # ms since 1970
    ended: int
    iterations: int


def sync(root: Path) -> list[str]:
    """Create the runs that results under `root` lack, tagged `restored`; returns one line for each. Idempotent.

    A result lacks a run when none with its benchmark, seed, run key and stage has the tag `complete`: the stage came
    from DVC's cache, or the store failed while it ran. Raises PipelineError when a file of a result is missing.
    """
    layout = Layout(root)
    results = list(_results(layout))
    with open_store(root) as store:
        return [line for result in results if (line := _restore(store, layout, result)) is not None]


def _results(layout: Layout) -> Iterator[_Result]:
    """Trainings, each followed by its evaluation if there is one."""
    for path in sorted((layout.root / "runs" / "train").glob("*/*/summary.json")):
        summary, cost = read_output(path), read_output(path.parent / "cost.json")
        trained = load_resolved(path.parent / "config.yaml")
        parameters = {"runtime.precision": summary["precision"], "runtime.device": cost["device"]}
        identity = Identity(
            trained,
            summary["seed"],
            summary["run_key"],
            summary["data_fingerprint"],
            parameters,
            summary.get("weights"),  # results of before there were imports have no such entry
        )
        started, ended = _milliseconds(cost["started"]), _milliseconds(cost["finished"])
        yield _Result(TRAIN, identity, cost, started, ended, summary["iterations"])
        folder = layout.evaluate(trained.id, identity.seed)
        described = folder / "details" / "evaluation.json"
        if not described.exists():
            continue
        evaluation, cost = read_output(described), cost | read_output(folder / "cost.json")
        if evaluation["run_key"] == identity.run_key:  # else it is of an earlier training, about to be replaced
            identity = replace(identity, benchmark=_evaluated(trained, evaluation, described))
            end = ended + int(1000 * cost["seconds"])
            yield _Result(EVALUATE, identity, cost, ended, end, summary["iterations"])


def _evaluated(trained: Benchmark, evaluation: dict[str, Any], where: Path) -> Benchmark:
    """The benchmark as it was evaluated: a training's own file leaves out what it does not depend on."""
    data = trained.model_dump(mode="json")
    data["inference"] = evaluation["protocol"]
    # Without public labels the evaluation split went to a server's archive, and another one was scored.
    data["dataset"]["evaluation_split"] = (evaluation.get("submission") or evaluation)["split"]
    return parse(Benchmark, data, str(where))


def _restore(store: Store, layout: Layout, result: _Result) -> str | None:
    """Create the run of `result` unless there is a complete one."""
    identity, client = result.identity, store.client
    tags = identity.descriptive_tags(result.cost["commit"], result.cost["dirty"])
    parent = open_parent(store, identity, tags | {"restored": "true"}, result.started)
    earlier = find_runs(client, parent.info.experiment_id, identity, result.stage)
    if any(run.data.tags.get("complete") == "true" for run in earlier):
        return None
    run = client.create_run(
        parent.info.experiment_id,
        result.started,
        tags=identity.tags(result.stage) | tags | {"restored": "true", "mlflow.parentRunId": parent.info.run_id},
        run_name=result.stage,
    )
    run_id = run.info.run_id
    mlflow = load_mlflow()
    mlflow.start_run(run_id=run_id)  # models are logged to the active run
    status = "FAILED"
    try:
        describe(store, run_id, identity, result.stage)
        publish(Target(client, run_id, parent.info.run_id), identity, result.stage, layout, _clock(result))
        supersede(client, earlier, run_id)
        status = "FINISHED"
    finally:
        mlflow.end_run(status)
        client.set_terminated(run_id, status, result.ended)
        client.set_terminated(parent.info.run_id, status, result.ended)
    return f"{result.stage} {identity.benchmark.id} seed {identity.seed}: restored as run {run_id}"


def _clock(result: _Result) -> Clock:
    """Spread the curves over the time that the training took."""

    def at(step: int) -> int:
        return result.started + (result.ended - result.started) * step // max(result.iterations, 1)

    return at


def _milliseconds(timestamp: str) -> int:
    return int(datetime.datetime.fromisoformat(timestamp).timestamp() * 1000)
