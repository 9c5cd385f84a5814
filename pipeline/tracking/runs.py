"""Track one stage of one benchmark and seed while it runs.

    with stage_run(root, benchmark, seed, "train", runtime) as run:
        train_benchmark(root, benchmark, seed, runtime, run.log)

When the block ends well, the files that the stage wrote are put into the run.

A training that resumes from its saved state goes on in the run it was interrupted in, and points which that run already
has are not logged twice. Every other repetition is a new run that supersedes the earlier one. Trouble with the store is
an error before the stage begins; afterwards it is one warning, and `sync` repairs the gap.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.checkpoints.starting import weights_digest
from pipeline.config import Benchmark
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset, scored_split
from pipeline.layout import Layout
from pipeline.runtime.distributed import arithmetic, ranks
from pipeline.tracking.curves import LiveCurves, logged_steps
from pipeline.tracking.identity import EVALUATE, TRAIN, Identity, Stage, find_runs, process_tags
from pipeline.tracking.results import Target, publish, read_output
from pipeline.tracking.store import Store, explained, load_mlflow, open_store, without_password
from pipeline.tracking.tree import log_configuration, log_dataset, open_parent, supersede
from pipeline.training.state import run_key

_LOGGER = logging.getLogger(__name__)
_LONGEST_ERROR = 5000  # characters of a tag; the traceback is the artifact error.txt


class StageRun:
    """What a stage logs to. No method raises because of the store."""

    def __init__(self, target: Target, identity: Identity, stage: Stage, known: dict[str, set[int]]) -> None:
        self.run_id = target.run_id
        self.parent_id = target.parent_id
        self._target, self._identity, self._stage = target, identity, stage
        self._curves = LiveCurves(target.client, target.run_id, known, self._lost)
        self._warned = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at `step`, named `train/...` or `validation/...`: the training loop's callback."""
        self._curves.add(step, values)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file (a figure, say) as an artifact, in `folder` of the run."""
        with self._tolerated():
            self._target.client.log_artifact(self.run_id, str(path), folder)

    def finish(self, layout: Layout) -> None:
        """Publish the results of the stage and end the run. `stage_run` calls it."""
        self._curves.flush()
        with self._tolerated():
            publish(self._target, self._identity, self._stage, layout)
        self._end("FINISHED")

    def abort(self, error: BaseException) -> None:
        """End the run as KILLED (an interrupt) or FAILED, with the error. `stage_run` calls it."""
        self._curves.flush()
        interrupted = isinstance(error, KeyboardInterrupt)
        if not interrupted:
            client = self._target.client
            with self._tolerated():
                client.set_tag(self.run_id, "error", f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
                client.log_text(self.run_id, "".join(traceback.format_exception(error)), "error.txt")
        self._end("KILLED" if interrupted else "FAILED")

    def _end(self, status: str) -> None:
        with self._tolerated():
            load_mlflow().end_run(status)
        with self._tolerated():
            self._target.client.set_terminated(self.parent_id, status)

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # results on disk must not be lost because the store is
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._warned:
            _LOGGER.warning(
                "tracking of %s %s seed %d has a gap (%s: %s); the work goes on. "
                "Run `python -m pipeline sync` when it is done.",
                self._stage,
                self._identity.benchmark.id,
                self._identity.seed,
                type(error).__name__,
                without_password(str(error).partition("\n")[0]),
            )
        self._warned = True


class NoRun:
    """Stands in for a StageRun when tracking is off."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Do nothing."""


@contextmanager
def stage_run(
    root: Path, benchmark: Benchmark, seed: int, stage: Stage, runtime: RuntimeConfig
) -> Iterator[StageRun | NoRun]:
    """An MLflow run for `stage`, nested below the run of this training.

    Nothing with `runtime.mlflow` false, and on all ranks but the main one.

    An exception ends the run as FAILED with its text in the tag `error`, an interrupt as KILLED; both are raised again.
    Raises PipelineError when the store cannot be used at all.
    """
    if not runtime.mlflow or not ranks().is_main:
        yield NoRun()
        return
    identity = _identity(root, benchmark, seed, stage, runtime)
    with open_store(root) as store:
        with explained(store.uri):
            run = _begin(store, root, identity, stage)
        try:
            yield run
        except BaseException as error:
            run.abort(error)
            raise
        run.finish(Layout(root))


def _identity(root: Path, benchmark: Benchmark, seed: int, stage: Stage, runtime: RuntimeConfig) -> Identity:
    """An evaluation belongs to the training whose summary it reads."""
    layout = Layout(root)
    prepared = layout.prepared(benchmark.dataset.name) / "dataset.json"
    # Without prepared data the stage is about to say so itself.
    fingerprint = read_output(prepared)["fingerprint"] if prepared.exists() else None
    parameters = {"runtime.precision": runtime.precision, "runtime.device": runtime.device}
    if stage == TRAIN:
        weights = weights_digest(layout, benchmark)
        key = run_key(benchmark, seed, fingerprint or "", arithmetic(runtime), weights)
    else:
        summary = read_output(layout.train(benchmark.id, seed) / "summary.json")
        key, weights = summary["run_key"], summary.get("weights")
    return Identity(benchmark, seed, key, fingerprint, parameters, weights)


def _begin(store: Store, root: Path, identity: Identity, stage: Stage) -> StageRun:
    """Continue the interrupted run of a training that will resume, or start a new one."""
    mlflow, client = load_mlflow(), store.client
    tags = process_tags(root, identity)
    parent = open_parent(store, identity, tags)
    parent_id, experiment_id = parent.info.run_id, parent.info.experiment_id
    client.update_run(parent_id, status="RUNNING")
    earlier = find_runs(client, experiment_id, identity, stage)
    interrupted = [run for run in earlier if run.info.status != "FINISHED" and "superseded_by" not in run.data.tags]
    known: dict[str, set[int]] = {}
    if interrupted and stage == TRAIN and _will_resume(root, identity):
        run = interrupted[0]
        known = logged_steps(client, run.info.run_id)
        mlflow.start_run(run_id=run.info.run_id, log_system_metrics=True)
        client.set_tag(run.info.run_id, "resumed", str(int(run.data.tags.get("resumed", 0)) + 1))
        if "error" in run.data.tags:
            client.delete_tag(run.info.run_id, "error")
    else:
        run = mlflow.start_run(
            experiment_id=experiment_id,
            run_name=stage,
            parent_run_id=parent_id,
            tags=identity.tags(stage) | tags,
            log_system_metrics=True,
        )
        describe(store, run.info.run_id, identity, stage)
        supersede(client, earlier, run.info.run_id)
    return StageRun(Target(client, run.info.run_id, parent_id), identity, stage, known)


def describe(store: Store, run_id: str, identity: Identity, stage: Stage) -> None:
    """Configuration and data of a new stage run."""
    dataset = identity.benchmark.dataset
    log_configuration(store.client, run_id, identity, stage)
    if stage == EVALUATE:
        log_dataset(store.client, run_id, identity, scored_split(dataset, get_dataset(dataset.name)), "test")
    elif identity.benchmark.mode == "train":  # importing a checkpoint reads no image
        log_dataset(store.client, run_id, identity, "+".join(dataset.train_splits), "training")


def _will_resume(root: Path, identity: Identity) -> bool:
    """Whether `pipeline.training` will find a state to go on from."""
    return (Layout(root).state(identity.benchmark.id, identity.run_key) / "state.pt").exists()
