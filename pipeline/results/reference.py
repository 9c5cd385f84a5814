"""Reference records: what trainings of a benchmark scored on known machines, kept in Git to judge a rerun by.

`reports/reference/<benchmark>.json` holds one entry per training. What every entry has in common (configuration, data,
precision) is stated once; a training of anything else starts a new file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Benchmark, for_evaluation
from pipeline.config.parse import parse
from pipeline.config.schema import PROTOCOLS
from pipeline.errors import PipelineError
from pipeline.files.storage import read_json, write_json
from pipeline.results.run import Run

_REMEDY = "restore it from Git, or delete it and run `make reference`"


@dataclass(frozen=True)
class ReferenceTraining:
    """One training. Seed, kernels and threads name it: each changes the rounding, and thereby the training."""

    seed: int
    kernels: str  # instruction sets of the linear algebra, see `runtime.provenance.hardware`
    threads: int | None
    scores: dict[str, float]  # mIoU by protocol, fractions
    weights: str | None  # sha256 of the evaluated file; None: not recorded
    commit: str | None
    dirty: bool
    finished: str
    machine: str

    @property
    def key(self) -> tuple[int, str, int | None, str]:
        """What two trainings must share to be paired, or to be the same."""
        return self.seed, self.kernels, self.threads, self.machine


@dataclass(frozen=True)
class Reference:
    """Trainings of one configuration on one set of data."""

    name: str
    benchmark: Benchmark  # without what only the report reads
    data_fingerprint: str
    precision: str
    trainings: tuple[ReferenceTraining, ...]

    @classmethod
    def of_runs(cls, benchmark: Benchmark, runs: Iterable[Run]) -> Reference:
        """The reference that `runs`, at least one, are for others."""
        runs = tuple(runs)
        first, trainings = runs[0], tuple(_training(run) for run in runs)
        return cls(first.name, for_evaluation(benchmark), first.data_fingerprint, first.precision, trainings)

    def joined(self, other: Reference) -> Reference:
        """The trainings of both; those of `other` replace equal ones. Without a common configuration, `other` alone."""
        shared = [(each.benchmark, each.data_fingerprint, each.precision) for each in (self, other)]
        kept = {training.key: training for training in self.trainings} if shared[0] == shared[1] else {}
        kept |= {training.key: training for training in other.trainings}
        ordered = sorted(kept.values(), key=lambda training: (training.kernels, training.threads or 0, training.seed))
        return Reference(other.name, other.benchmark, other.data_fingerprint, other.precision, tuple(ordered))


def read_reference(root: Path, name: str) -> Reference | None:
    """The committed reference of a benchmark; None without one. Raises PipelineError when it is damaged."""
    path = _path(root, name)
    if not path.is_file():
        return None
    data = read_json(path, _REMEDY)
    try:
        benchmark = parse(Benchmark, data["benchmark"], f"{path}: benchmark")
        trainings = tuple(ReferenceTraining(**training) for training in data["trainings"])
        return Reference(data["name"], benchmark, data["data_fingerprint"], data["precision"], trainings)
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{path}: damaged record ({error}); {_REMEDY}") from error


def write_reference(root: Path, reference: Reference) -> Path:
    """Write the file of `reference`; returns its path."""
    data: dict[str, Any] = asdict(reference) | {"benchmark": reference.benchmark.model_dump(mode="json")}
    path = _path(root, reference.name)
    write_json(path, data)
    return path


def _path(root: Path, name: str) -> Path:
    return root / "reports" / "reference" / f"{name}.json"


def _training(run: Run) -> ReferenceTraining:
    machine = run.hardware
    return ReferenceTraining(
        seed=run.seed,
        kernels=machine.get("kernels", ""),
        threads=machine.get("threads"),
        scores={protocol: run.scores[protocol].miou for protocol in PROTOCOLS},
        weights=run.weights,
        commit=run.commit,
        dirty=run.dirty,
        finished=run.finished,
        machine=machine.get("gpu") or machine.get("cpu") or "",
    )
