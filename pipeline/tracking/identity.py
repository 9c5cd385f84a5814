"""What identifies and describes a run: its tags, parameters and data, and the parent run above it.

Runs are found by their tags. MLflow's ids are random: a result file that contained one would change its hash every
time. Each benchmark, seed and run key has one parent run, with one run per stage below it. A stage that runs again gets
a new run, and the older one the tag `superseded_by`; nothing is deleted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.config import Benchmark, config_hash, evaluation_hash, resolved_yaml
from pipeline.config.overlay import dotted
from pipeline.datasets import get_dataset, scored_split
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

StageName = Literal["train", "evaluate-msflip"]

DIGEST_LENGTH = 36  # characters of a dataset's digest that MLflow accepts
_NOT_SETTINGS = {"id", "description", "published", "baseline"}
_ONLY_EVALUATION = ("inference.ms_flip.", "inference.checkpoint", "inference.cascade", "dataset.evaluation_split")


@dataclass(frozen=True)
class TrackedStage:
    """A stage of one benchmark and seed; `run_key` distinguishes versions of its configuration, code and data."""

    name: StageName
    benchmark: Benchmark
    seed: int
    run_key: str  # of the training
    fingerprint: str  # of the prepared data
    weights: str | None  # sha256 of the file that it starts from: published checkpoint, ImageNet weights or `start`
    precision: str
    device: str
    commit: str | None
    dirty: bool  # files differed from that commit

    def tags(self) -> dict[str, str]:
        """The tags by which its run is found. One training may be evaluated under several protocols."""
        evaluation = {"evaluation_hash": evaluation_hash(self.benchmark)} if self.name == "evaluate-msflip" else {}
        return self.parent_tags() | {"stage": self.name} | evaluation

    def parent_tags(self) -> dict[str, str]:
        """The tags by which its parent run is found."""
        return {"benchmark": self.benchmark.id, "seed": str(self.seed), "run_key": self.run_key, "stage": "parent"}

    @property
    def _weights_tag(self) -> str:
        if self.benchmark.mode == "import":
            return "checkpoint_sha256"
        return "start_sha256" if self.benchmark.start else "imagenet_sha256"

    def further_tags(self) -> dict[str, str]:
        """Tags to filter by, for both runs."""
        tags = {
            "dataset": self.benchmark.dataset.name,
            "mode": self.benchmark.mode,
            self._weights_tag: self.weights,
            "config_hash": config_hash(self.benchmark),
            "data_fingerprint": self.fingerprint,
            "git_commit": self.commit,
            "git_dirty": json.dumps(self.dirty),
            "mlflow.source.git.commit": self.commit,  # the UI's column "Version"
        }
        return {name: value for name, value in tags.items() if value is not None}


def find_runs(client: MlflowClient, experiment_id: str, tags: dict[str, str]) -> list[Run]:
    """Runs with these tags, newest first."""
    conditions = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    return list(client.search_runs([experiment_id], conditions, order_by=["attributes.start_time DESC"]))


def open_parent(store: Store, stage: TrackedStage, tags: dict[str, str], start_time: int | None = None) -> Run:
    """The parent run of `stage`, created with `tags` if necessary. start_time: ms since 1970, None for now."""
    with store.lock():
        experiment_id = store.experiment(stage.benchmark.dataset.name)
        for run in find_runs(store.client, experiment_id, stage.parent_tags()):
            return run
        name = f"{stage.benchmark.id} seed {stage.seed}"
        run = store.client.create_run(experiment_id, start_time, tags=stage.parent_tags() | tags, run_name=name)
        _log_configuration(store.client, run.info.run_id, stage, with_evaluation=False)
        return run


def describe(client: MlflowClient, run_id: str, stage: TrackedStage) -> None:
    """Log the configuration of a new run, and the name and fingerprint of its data as its input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset, evaluates = stage.benchmark.dataset, stage.name == "evaluate-msflip"
    _log_configuration(client, run_id, stage, with_evaluation=evaluates)
    if stage.benchmark.mode == "import" and not evaluates:
        return  # importing a checkpoint reads no image
    split = scored_split(dataset, get_dataset(dataset.name)) if evaluates else "+".join(dataset.train_splits)
    source = json.dumps({"uri": f"data/prepared/{dataset.name}"})
    profile = json.dumps({"split": split, "fingerprint": stage.fingerprint})
    data = Dataset(dataset.name, stage.fingerprint[:DIGEST_LENGTH], "local", source, profile=profile)
    context = InputTag("mlflow.data.context", "test" if evaluates else "training")
    client.log_inputs(run_id, [DatasetInput(data, [context])])


def supersede(client: MlflowClient, earlier: list[Run], run_id: str) -> None:
    """Tag earlier runs of the same stage; one that still counts as running belongs to a process that died."""
    for run in earlier:
        if "superseded_by" not in run.data.tags:
            client.set_tag(run.info.run_id, "superseded_by", run_id)
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")


def flat_parameters(benchmark: Benchmark, with_evaluation: bool) -> dict[str, str]:
    """`section.key: value`, as in YAML, of everything that can change a result.

    with_evaluation: include what only the evaluation reads, which `config.for_training` sets to defaults.
    """
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in dotted(benchmark.model_dump(mode="json", exclude=_NOT_SETTINGS)).items()
        if with_evaluation or not key.startswith(_ONLY_EVALUATION)
    }


def _log_configuration(client: MlflowClient, run_id: str, stage: TrackedStage, with_evaluation: bool) -> None:
    """The configuration as parameters, to compare runs, and as the artifact config.yaml, to run it again."""
    from mlflow.entities import Param

    flat = flat_parameters(stage.benchmark, with_evaluation)
    flat |= {"seed": str(stage.seed), "runtime.precision": stage.precision, "runtime.device": stage.device}
    client.log_batch(run_id, params=[Param(name, value) for name, value in flat.items()])
    client.log_text(run_id, resolved_yaml(stage.benchmark), "config.yaml")
