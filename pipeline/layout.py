"""Folders below the repository root that stages share; `dvc.yaml` names the same paths. Commands name their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below `root`. Not outputs of a DVC stage: `raw` and `state`, which must survive a failed one, and locks.

    Raw data, states and `weights_lock` are below `home`, so that queued experiments share the data and can be resumed.
    """

    root: Path

    @property
    def home(self) -> Path:
        """The repository: DVC runs queued experiments in a temporary copy and then names the repository in DVC_ROOT."""
        return Path(os.environ.get("DVC_ROOT") or self.root)

    @property
    def plan(self) -> Path:
        """Resolved benchmarks, and the datasets and weight files they need."""
        return self.root / "runs" / "plan"

    def resolved(self, benchmark: str) -> Path:
        """The benchmark with defaults and ablation written out."""
        return self.plan / f"{benchmark}.yaml"

    def resolved_for(self, stage: str, benchmark: str) -> Path:
        """The part of it that `stage` (train or evaluate) depends on; the rest is at its defaults."""
        return self.plan / stage / f"{benchmark}.yaml"

    def raw(self, dataset: str) -> Path:
        """The dataset as its owners publish it."""
        return self.home / "data" / "raw" / dataset

    def source(self, dataset: str) -> Path:
        """Where the raw data came from and its checksum."""
        return self.root / "data" / "sources" / f"{dataset}.json"

    @property
    def weights(self) -> Path:
        """Downloaded weight files, beside the raw datasets."""
        return self.raw("weights")

    @property
    def weights_lock(self) -> Path:
        """Size and sha256 of every weight file ever downloaded; belongs in Git. Shared by queued experiments."""
        return self.home / "weights.lock.json"

    @property
    def weights_source(self) -> Path:
        """Which weight file each benchmark starts from, and its path."""
        return self.source("weights")

    def prepared(self, dataset: str) -> Path:
        """The uniform form that training and evaluation read."""
        return self.root / "data" / "prepared" / dataset

    def index(self, benchmark: str) -> Path:
        """Fingerprint of the data that a benchmark uses, and of the weight file that it starts from."""
        return self.root / "data" / "index" / f"{benchmark}.json"

    def train(self, benchmark: str, seed: int) -> Path:
        """Weights, curves and summary of one training."""
        return self.root / "runs" / "train" / benchmark / str(seed)

    def curves(self, benchmark: str, seed: int) -> Path:
        """Loss and validation curves of one training, in a folder that DVC plots."""
        return self.root / "runs" / "curves" / benchmark / str(seed)

    def evaluate(self, benchmark: str, seed: int) -> Path:
        """Metrics and details of one evaluation."""
        return self.root / "runs" / "evaluate" / benchmark / str(seed)

    def state(self, benchmark: str, key: str) -> Path:
        """Resumable state of an unfinished training."""
        return self.home / "runs" / "state" / benchmark / key

    def training_lock(self, benchmark: str, seed: int) -> Path:
        """Held while `train(benchmark, seed)` is made; a queued experiment has its own."""
        return self.root / "runs" / "state" / f".{benchmark}-{seed}.lock"

    @property
    def report(self) -> Path:
        """The generated report."""
        return self.root / "reports"
