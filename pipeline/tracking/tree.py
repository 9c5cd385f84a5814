"""The two levels of runs: one parent per benchmark, seed and run key, and below it one run per stage.

A finished stage that runs again gets a new run, and the older one the tag `superseded_by`; nothing is deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.config import resolved_yaml
from pipeline.tracking.identity import EVALUATE, PARENT, Identity, find_runs
from pipeline.tracking.parameters import flat_parameters, parameter_text
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PARAMETERS_PER_REQUEST = 100  # MLflow's limit
_DIGEST_LENGTH = 36  # MLflow's limit


def open_parent(store: Store, identity: Identity, tags: dict[str, str], start_time: int | None = None) -> Run:
    """The parent run of `identity`, found by its tags or created. start_time: ms since 1970, None for now."""
    with store.lock():
        experiment_id = store.experiment(identity.benchmark.dataset.name)
        for run in find_runs(store.client, experiment_id, identity, PARENT):
            return run
        run = store.client.create_run(
            experiment_id,
            start_time,
            tags=identity.tags(PARENT) | tags,
            run_name=f"{identity.benchmark.id} seed {identity.seed}",
        )
        log_configuration(store.client, run.info.run_id, identity, PARENT)
        return run


def log_configuration(client: MlflowClient, run_id: str, identity: Identity, stage: str) -> None:
    """The configuration as parameters (to compare runs by) and as the artifact config.yaml (to run it again)."""
    from mlflow.entities import Param

    flat = flat_parameters(identity.benchmark, with_evaluation=stage == EVALUATE) | {"seed": str(identity.seed)}
    flat |= {name: parameter_text(value) for name, value in identity.parameters.items()}
    params = [Param(name, value) for name, value in flat.items()]
    for start in range(0, len(params), _PARAMETERS_PER_REQUEST):
        client.log_batch(run_id, params=params[start : start + _PARAMETERS_PER_REQUEST])
    client.log_text(run_id, resolved_yaml(identity.benchmark), "config.yaml")


def log_dataset(client: MlflowClient, run_id: str, identity: Identity, split: str, context: str) -> None:
    """Name and fingerprint of the data as the run's input; the data itself is not read. context: training or test."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if identity.fingerprint is None:
        return
    name = identity.benchmark.dataset.name
    dataset = Dataset(
        name=name,
        digest=dataset_digest(identity.fingerprint),
        source_type="local",
        source=json.dumps({"uri": f"data/prepared/{name}"}),
        profile=json.dumps({"split": split, "fingerprint": identity.fingerprint}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def dataset_digest(fingerprint: str) -> str:
    """The fingerprint as far as MLflow takes it."""
    return fingerprint[:_DIGEST_LENGTH]


def supersede(client: MlflowClient, earlier: list[Run], run_id: str) -> None:
    """Tag earlier runs of the same stage; one that still counts as running belongs to a process that died."""
    for run in earlier:
        if "superseded_by" not in run.data.tags:
            client.set_tag(run.info.run_id, "superseded_by", run_id)
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
