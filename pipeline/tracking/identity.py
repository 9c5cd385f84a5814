"""How a run is found again: by tags, never by its random id, which would change the hash of any file that held it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.config import Benchmark, config_hash
from pipeline.runtime.provenance import loaded_code

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Stage = Literal["train", "evaluate-msflip"]
TRAIN: Stage = "train"
EVALUATE: Stage = "evaluate-msflip"
PARENT = "parent"  # value of the tag `stage` on the run that holds the stages of one benchmark and seed


@dataclass(frozen=True)
class Identity:
    """One benchmark trained with one seed; `run_key` tells apart versions of its configuration, code and data."""

    benchmark: Benchmark
    seed: int
    run_key: str
    fingerprint: str | None = None  # of the prepared data; None when unknown
    parameters: dict[str, object] = field(default_factory=dict)  # besides the benchmark's: precision, device, ...
    weights: str | None = None  # sha256 of the file that it starts from: a published checkpoint or ImageNet weights

    def tags(self, stage: str) -> dict[str, str]:
        """The tags by which the run of `stage` is found. One training may be evaluated in several ways."""
        tags = {"benchmark": self.benchmark.id, "seed": str(self.seed), "run_key": self.run_key, "stage": stage}
        return tags | ({"evaluation_hash": self._evaluation_hash()} if stage == EVALUATE else {})

    def _evaluation_hash(self) -> str:
        settings = [self.benchmark.dataset.evaluation_split, self.benchmark.inference.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def descriptive_tags(self, commit: str | None, dirty: bool) -> dict[str, str]:
        """What else a person filters by."""
        tags = {
            "dataset": self.benchmark.dataset.name,
            "mode": self.benchmark.mode,
            "checkpoint_sha256" if self.benchmark.mode == "import" else "imagenet_sha256": self.weights,
            "config_hash": config_hash(self.benchmark),
            "data_fingerprint": self.fingerprint,
            "git_commit": commit,
            "git_dirty": str(dirty).lower(),
            "mlflow.source.git.commit": commit,  # the UI's column "Version"
        }
        return {name: value for name, value in tags.items() if value is not None}


def process_tags(root: Path, identity: Identity) -> dict[str, str]:
    """Descriptive tags of a run that happens now, in this process."""
    dvc = {"dvc_stage": os.environ.get("DVC_STAGE"), "dvc_experiment": os.environ.get("DVC_EXP_NAME")}
    return identity.descriptive_tags(*loaded_code(root)) | {name: value for name, value in dvc.items() if value}


def find_runs(client: MlflowClient, experiment_id: str, identity: Identity, stage: str) -> list[Run]:
    """Runs of this identity and stage, newest first."""
    conditions = " and ".join(f"tags.{name} = '{value}'" for name, value in identity.tags(stage).items())
    return list(client.search_runs([experiment_id], conditions, order_by=["attributes.start_time DESC"]))
