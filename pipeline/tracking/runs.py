"""Track one stage of one benchmark and seed while it runs.

    with stage_run(root, benchmark, seed, "train", runtime) as run:
        train_benchmark(root, benchmark, seed, runtime, run.log)

Files that the stage wrote are logged at the end of the block. A training that resumes continues its interrupted run,
without logging a point twice; any other repetition is a new run that supersedes the earlier one. A store that cannot be
used is an error before the stage begins; later it is one warning, and `sync` adds what is missing.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Benchmark
from pipeline.config.schema import RuntimeConfig
from pipeline.errors import first_line
from pipeline.layout import Layout
from pipeline.results.record import TrainingFiles
from pipeline.runtime.device import resolve_device
from pipeline.runtime.distributed import ranks
from pipeline.runtime.provenance import loaded_code
from pipeline.tracking.identity import StageName, TrackedStage, describe, find_runs, open_parent, supersede
from pipeline.tracking.publish import OpenRun, logged_steps, publish
from pipeline.tracking.store import Store, explained, load_mlflow, open_store, without_password
from pipeline.training.state import has_state, identify

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_LOGGER = logging.getLogger(__name__)
_SECONDS = 5.0  # between requests, which take about 10 ms: 0.2 % of the time
_FIRST_PAUSE = 60.0  # seconds without requests after an error; doubles with every further one


class StageRun:
    """What a stage logs to. No method raises because of the store.

    Points are sent every few seconds; those lost to an error are added from the result files when the stage ends.
    """

    def __init__(self, run: OpenRun, known: dict[str, set[int]]) -> None:
        self.run_id = run.run_id
        self._run, self._known = run, known  # steps of the curves that the run has from before an interruption
        self._points: list[Metric] = []
        self._next_request = 0.0  # the first point is shown at once
        self._pause = _FIRST_PAUSE

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at `step`, named `train/...` or `validation/...`: the training loop's callback."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = {name: float(value) for name, value in values.items() if step not in self._known.get(name, ())}
        self._points += [Metric(name, value, now, step) for name, value in new.items()]
        if time.monotonic() >= self._next_request:
            self._send_points()

    def finish(self, layout: Layout) -> None:
        """Publish the results of the stage and end the run. `stage_run` calls it."""
        self._send_points()
        with self._errors_as_warning():
            publish(self._run, layout)
        self._end("FINISHED")

    def abort(self, error: BaseException) -> None:
        """End the run as KILLED (an interrupt) or FAILED, with the error. `stage_run` calls it."""
        self._send_points()
        interrupted = isinstance(error, KeyboardInterrupt)
        if not interrupted:
            with self._errors_as_warning():
                client = self._run.client
                client.set_tag(self.run_id, "error", f"{type(error).__name__}: {error}")
                client.log_text(self.run_id, "".join(traceback.format_exception(error)), "error.txt")
        self._end("KILLED" if interrupted else "FAILED")

    def _send_points(self) -> None:
        self._next_request = time.monotonic() + _SECONDS
        points, self._points = self._points, []
        with self._errors_as_warning():
            self._run.client.log_batch(self.run_id, metrics=points)

    def _end(self, status: str) -> None:
        with self._errors_as_warning():
            load_mlflow().end_run(status)
        with self._errors_as_warning():
            self._run.client.set_terminated(self._run.parent_id, status)

    @contextmanager
    def _errors_as_warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever database and HTTP libraries raise: the results on disk must not be lost
            if self._pause == _FIRST_PAUSE:
                stage, reason = self._run.stage, without_password(first_line(error))
                _LOGGER.warning(
                    f"MLflow lacks a part of {stage.name} {stage.benchmark.id} seed {stage.seed} ({reason}); the stage "
                    "continues. Run `python -m pipeline sync` when it is done."
                )
            self._next_request = time.monotonic() + self._pause
            self._pause *= 2


class NoRun:
    """Replaces a StageRun when tracking is off."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""


@contextmanager
def stage_run(
    root: Path, benchmark: Benchmark, seed: int, stage: StageName, runtime: RuntimeConfig
) -> Iterator[StageRun | NoRun]:
    """An MLflow run for `stage`; a NoRun with `runtime.mlflow: false`, and on all ranks but the main one.

    An exception ends the run as FAILED with its text in the tag `error`, an interrupt as KILLED; both are raised again.
    Raises PipelineError when the store cannot be used at all.
    """
    if not runtime.mlflow or not ranks().is_main:
        yield NoRun()
        return
    tracked = _tracked_stage(root, benchmark, seed, stage, runtime)
    with open_store(root) as store:
        with explained(store.uri):
            run = _begin(store, Layout(root), tracked)
        try:
            yield run
        except BaseException as error:
            run.abort(error)
            raise
        run.finish(Layout(root))


def _tracked_stage(
    root: Path, benchmark: Benchmark, seed: int, stage: StageName, runtime: RuntimeConfig
) -> TrackedStage:
    layout = Layout(root)
    if stage == "train":
        identity = identify(layout, benchmark, seed, runtime)
        key, fingerprint, weights = identity.run_key, identity.fingerprint, identity.weights_sha256
        precision = identity.precision
    else:  # belongs to the training whose weights it reads
        record = TrainingFiles(layout, benchmark.id, seed).record
        key, fingerprint, weights, precision = record.run_key, record.data_fingerprint, record.weights, record.precision
    device = str(resolve_device(runtime.device))
    return TrackedStage(stage, benchmark, seed, key, fingerprint, weights, precision, device, *loaded_code(root))


def _begin(store: Store, layout: Layout, stage: TrackedStage) -> StageRun:
    """Continue the interrupted run of a training that will resume, or start a new one."""
    dvc = {"dvc_stage": os.environ.get("DVC_STAGE"), "dvc_experiment": os.environ.get("DVC_EXP_NAME")}
    tags = stage.further_tags() | {name: value for name, value in dvc.items() if value}
    parent = open_parent(store, stage, tags)
    store.client.update_run(parent.info.run_id, status="RUNNING")
    try:
        run_id, known = _open_run(store.client, layout, stage, parent, tags)
    except BaseException:
        load_mlflow().end_run("FAILED")  # else it would count as active, and refuse every later run of this process
        store.client.set_terminated(parent.info.run_id, "FAILED")
        raise
    return StageRun(OpenRun(store.client, run_id, parent.info.run_id, stage), known)


def _open_run(
    client: MlflowClient, layout: Layout, stage: TrackedStage, parent: Run, tags: dict[str, str]
) -> tuple[str, dict[str, set[int]]]:
    """The stage's run below `parent`, and the steps of the curves that it has from before an interruption."""
    mlflow = load_mlflow()
    earlier = find_runs(client, parent.info.experiment_id, stage.tags())
    interrupted = [run for run in earlier if run.info.status != "FINISHED" and "superseded_by" not in run.data.tags]
    if interrupted and stage.name == "train" and has_state(layout.state(stage.benchmark.id, stage.run_key)):
        run = interrupted[0]
        known = logged_steps(client, run.info.run_id)
        mlflow.start_run(run_id=run.info.run_id, log_system_metrics=True)
        client.set_tag(run.info.run_id, "resumed", str(int(run.data.tags.get("resumed", 0)) + 1))
        if "error" in run.data.tags:
            client.delete_tag(run.info.run_id, "error")
        return run.info.run_id, known
    place = {"experiment_id": parent.info.experiment_id, "parent_run_id": parent.info.run_id, "run_name": stage.name}
    run = mlflow.start_run(**place, tags=stage.tags() | tags, log_system_metrics=True)
    describe(client, run.info.run_id, stage)
    supersede(client, earlier, run.info.run_id)
    return run.info.run_id, {}
