"""What a training and an evaluation leave behind, typed. No other module knows the names of these files.

    runs/train/<benchmark>/<seed>/      last.safetensors, best.safetensors, config.yaml, summary.json, cost.json,
                                        memory.npz
    runs/curves/<benchmark>/<seed>/     history.csv, validation.csv
    runs/evaluate/<benchmark>/<seed>/   metrics.json, cost.json, details/
        details/                        evaluation.json, per_class.csv, per_image.npz, confusion.npz, probes.npz,
                                        predictions/, submission_<protocol>.zip

`summary.json` depends on neither machine nor time; whatever does is in `cost.json`, on which no later result depends.
Every reader raises PipelineError that names the file and the stage to run again.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config import Benchmark, load_resolved, resolved_yaml
from pipeline.config.schema import PROTOCOLS
from pipeline.errors import PipelineError
from pipeline.files.storage import new_file, write_json
from pipeline.layout import Layout
from pipeline.results.metrics import Counts, iou, miou

T = TypeVar("T")

DAMAGED_NPZ = (zipfile.BadZipFile, zlib.error, EOFError)  # what NumPy raises for one that was cut off or changed

HISTORY = (
    *("iteration", "epoch", "lr", "loss", "loss_final", "loss_coarse", "loss_context", "loss_auxiliary"),
    *("loss_consistency", "grad_norm", "memory_momentum"),
)
VALIDATION = ("epoch", "iteration", "miou", "pixel_accuracy")
BOUNDARY = {protocol: f"{protocol}_boundary" for protocol in PROTOCOLS}  # counts of pixels near a boundary
PROBES = {  # what is changed about the memory of a trained network, see `evaluation.probes`
    "final": "as trained",
    "coarse": "coarse logits, before the memory is read",
    "oracle": "memory read with the true classes as weights",
    "uniform": "with equal weights for all classes",
    "shuffled": "with each class's weight given to the next class",
    "zero": "all vectors of the memory zero",
    "random": "all vectors noise of the same mean length",
    "memory_mean": "what the attention over the memory returns, replaced by its mean over the image",
    "context_mean": "the same for the attention over the image's context",
}


@dataclass(frozen=True)
class TrainingRecord:
    """What the weights are (summary.json)."""

    benchmark: str
    mode: str  # train, or import: a published checkpoint, without epochs, iterations, best and final
    seed: int
    config_hash: str
    run_key: str
    dataset: str
    data_fingerprint: str
    precision: str  # see `runtime.distributed.arithmetic`
    epochs: int
    iterations: int
    parameters: dict[str, int]  # total, encoder, head; the memory is a buffer and not counted
    flops: int  # of one image of the size of a training crop, as it is tested; an addition and a product are two
    weights: str | None  # sha256 of the file that the training started from, or that was imported
    checkpoint: dict[str, Any] | None  # the published file of an import: url, file, bytes, sha256, generation
    best: dict[str, Any] | None  # epoch and miou of the best validation
    final: dict[str, Any] | None  # miou of the last validation
    training_loss: float | None  # see `late_loss`
    untouched_memory: list[str]  # classes whose memory was never written


@dataclass(frozen=True)
class Cost:
    """Time and machine of a training (cost.json)."""

    seconds: float
    seconds_per_iteration: float | None
    peak_memory_bytes: int
    device: str
    hardware: dict[str, Any]  # see `runtime.provenance.hardware`
    libraries: dict[str, str]
    commit: str | None
    dirty: bool  # files differed from that commit
    started: str  # ISO 8601
    finished: str


@dataclass(frozen=True)
class ProtocolScores:
    """Fractions under one protocol; low and high bound the 95 % interval over images."""

    miou: float
    miou_low: float
    miou_high: float
    pixel_accuracy: float
    mean_accuracy: float
    boundary_miou: float | None = None  # see `metrics.near_boundaries`; None in records of older commits


@dataclass(frozen=True)
class EvaluationRecord:
    """How the weights were tested, and what they scored (metrics.json and details/evaluation.json)."""

    benchmark: str
    seed: int
    config_hash: str
    run_key: str  # of the training
    dataset: str
    images: int
    split: str
    submission: dict[str, Any] | None  # split, images and files (by protocol) for the server that scores the split
    checkpoint: str  # last or best
    panel: list[str]  # images whose ms+flip label maps are kept
    protocol: dict[str, Any]  # the benchmark's `inference` section
    scores: dict[str, ProtocolScores]  # by protocol
    attention_entropy: dict[str, float]  # over memory and context, see `evaluation.probes`; empty without memory


@dataclass(frozen=True)
class EvaluationCost:
    """Time of an evaluation (cost.json)."""

    seconds: float
    seconds_per_image: float
    device: str


@dataclass(frozen=True)
class Memory:
    """memory.npz: vectors (K, S, C) after the first epoch (None: imported) and at the end, and which were written."""

    first_epoch: NDArray[np.float32] | None
    final: NDArray[np.float32]
    touched: NDArray[np.bool_]  # (K, S)


@dataclass(frozen=True)
class _Files:
    """The files of one stage of one benchmark and seed."""

    layout: Layout
    benchmark: str
    seed: int

    def require(self, expected: Mapping[str, object], source: str) -> None:
        """Raise PipelineError unless the record has these values, as `source` says."""
        for key, value in expected.items():
            if (found := getattr(self.record, key)) != value:
                raise self._error(self._recorded, f"{key} is {found!r}, but {source} says {value!r}")

    @property
    def is_complete(self) -> bool:
        """Whether the stage ended here."""
        return self._last_written.is_file()

    def _error(self, path: Path, problem: str) -> PipelineError:
        """A file is missing or wrong: name it, and the stage to run again."""
        name = path.relative_to(self.layout.root) if path.is_relative_to(self.layout.root) else path
        again = f"rerun the stage {self._stage} of {self.benchmark}, seed {self.seed}: `dvc repro`"
        return PipelineError(f"{name}: {problem}; {again}")

    def _read(self, path: Path, reader: Callable[[Path], T]) -> T:
        try:
            return reader(path)
        except FileNotFoundError:
            raise self._error(path, "no such file") from None
        except (ValueError, KeyError, TypeError, OSError, *DAMAGED_NPZ) as error:
            raise self._error(path, f"cannot be read ({error})") from error


class TrainingFiles(_Files):
    """The files of one training."""

    _stage = "train"

    @property
    def folder(self) -> Path:
        """runs/train/<benchmark>/<seed>."""
        return self.layout.train(self.benchmark, self.seed)

    @property
    def curves(self) -> Path:
        """runs/curves/<benchmark>/<seed>."""
        return self.layout.curves(self.benchmark, self.seed)

    def weights(self, checkpoint: str) -> Path:
        """The state dict after the last epoch (`last`) or at the best validation (`best`)."""
        return self.folder / f"{checkpoint}.safetensors"

    def artifacts(self) -> list[Path]:
        """Everything but the weights, for a tracker."""
        return sorted(
            path for path in (*self.folder.iterdir(), *self.curves.iterdir()) if path.suffix != ".safetensors"
        )

    def write(
        self,
        benchmark: Benchmark,
        record: TrainingRecord,
        cost: Cost,
        memory: Memory | None,
        history: Sequence[Mapping[str, float]],
        validation: Sequence[Mapping[str, float]],
    ) -> None:
        """Everything but the weights. Curves without rows become their header lines."""
        if memory is not None:
            arrays = {name: value for name, value in vars(memory).items() if value is not None}
            with new_file(self.folder / "memory.npz") as stream:
                np.savez(stream, **arrays)
        for name, rows, columns in (("history.csv", history, HISTORY), ("validation.csv", validation, VALIDATION)):
            if unknown := {key for row in rows for key in row} - {*columns}:
                raise ValueError(f"{name}: no column for {', '.join(sorted(unknown))}")
            with new_file(self.curves / name) as stream:
                pd.DataFrame(rows, columns=columns).to_csv(stream, index=False)
        with new_file(self.folder / "config.yaml") as stream:
            stream.write(resolved_yaml(benchmark).encode())
        write_json(self._recorded, asdict(record))
        write_json(self.folder / "cost.json", asdict(cost))

    @cached_property
    def record(self) -> TrainingRecord:
        """summary.json."""
        return self._read(self._recorded, lambda path: _typed(TrainingRecord, _json(path)))

    @cached_property
    def cost(self) -> Cost:
        """cost.json."""
        return self._read(self.folder / "cost.json", lambda path: _typed(Cost, _json(path)))

    @cached_property
    def config(self) -> Benchmark:
        """config.yaml: the benchmark as it was trained; what only a test reads is at its default."""
        return load_resolved(self._read(self.folder / "config.yaml", _existing))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per log point."""
        return self._read(self.curves / "history.csv", pd.read_csv)

    @cached_property
    def validation(self) -> pd.DataFrame:
        """One row per validation."""
        return self._read(self.curves / "validation.csv", pd.read_csv)

    @cached_property
    def memory(self) -> Memory:
        """memory.npz, of a benchmark with memory."""
        return self._read(self.folder / "memory.npz", lambda path: Memory(**{"first_epoch": None} | _arrays(path)))

    def existing_weights(self, checkpoint: str) -> Path:
        """`weights`, once the file is there."""
        return self._read(self.weights(checkpoint), _existing)

    @property
    def _recorded(self) -> Path:
        return self.folder / "summary.json"

    _last_written = _recorded


class EvaluationFiles(_Files):
    """The files of one evaluation. Confusion matrices are by protocol, counts per image by protocol and BOUNDARY."""

    _stage = "evaluate-msflip"

    @property
    def folder(self) -> Path:
        """runs/evaluate/<benchmark>/<seed>."""
        return self.layout.evaluate(self.benchmark, self.seed)

    @property
    def details(self) -> Path:
        """Results that are not DVC metrics."""
        return self.folder / "details"

    def prediction(self, image_id: str) -> Path:
        """The ms+flip label map of an image of the panel."""
        return self.details / "predictions" / f"{image_id.replace('/', '__')}.png"

    def existing_prediction(self, image_id: str) -> Path:
        """`prediction`, once the file is there."""
        return self._read(self.prediction(image_id), _existing)

    def predictions(self) -> list[Path]:
        """All stored label maps."""
        return sorted((self.details / "predictions").glob("*.png"))

    def artifacts(self) -> list[Path]:
        """Everything but the label maps, for a tracker."""
        return sorted(path for folder in (self.folder, self.details) for path in folder.iterdir() if path.is_file())

    def write(
        self,
        record: EvaluationRecord,
        cost: EvaluationCost,
        classes: Sequence[str],
        ids: Sequence[str],
        counts: Mapping[str, Counts],
        confusion: Mapping[str, NDArray[np.int64]],
        probes: Mapping[str, Counts],
    ) -> None:
        """Everything but label maps and archives.

        counts: (N, K) by protocol and BOUNDARY; confusion: (K, K), row = truth; probes: counts by probe, empty without
        memory.
        """
        truth = next(iter(confusion.values())).sum(axis=1)
        per_class = {"class": classes, **{f"{p}_iou": iou(*Counts.of_confusion(c)) for p, c in confusion.items()}}
        with new_file(self.details / "per_class.csv") as stream:
            pd.DataFrame(per_class | {"gt_share": truth / truth.sum()}).to_csv(stream, index=False)
        with new_file(self.details / "confusion.npz") as stream:
            np.savez(stream, **confusion)
        write_counts(self.details / "per_image.npz", ids, counts)
        write_counts(self.details / "probes.npz", ids, probes)
        about = asdict(record)
        scores = about.pop("scores")
        shared = {key: about[key] for key in ("images", "split", "submission")}
        write_json(self.details / "evaluation.json", about)
        write_json(self.folder / "cost.json", asdict(cost))
        write_json(self._metrics, scores | shared)

    @cached_property
    def record(self) -> EvaluationRecord:
        """metrics.json and details/evaluation.json in one."""
        metrics = self._read(self._metrics, _json)
        scores = {p: self._read(self._metrics, lambda _, p=p: _typed(ProtocolScores, metrics[p])) for p in PROTOCOLS}
        about = self._read(self._recorded, _json)
        record = self._read(self._recorded, lambda _: _typed(EvaluationRecord, about | {"scores": scores}))
        for key in ("images", "split", "submission"):
            if getattr(record, key) != metrics.get(key):
                problem = f"{key} is {getattr(record, key)!r}, but metrics.json says {metrics.get(key)!r}"
                raise self._error(self._recorded, problem)
        return record

    @cached_property
    def cost(self) -> EvaluationCost:
        """cost.json."""
        return self._read(self.folder / "cost.json", lambda path: _typed(EvaluationCost, _json(path)))

    @cached_property
    def counts(self) -> tuple[tuple[str, ...], dict[str, Counts]]:
        """Ids of the N images, and their counts (N, K) by protocol and BOUNDARY."""
        return self._read(self.details / "per_image.npz", read_counts)

    @cached_property
    def probes(self) -> dict[str, Counts]:
        """Counts (N, K) by probe of `evaluation.probes`; empty without memory."""
        return self._read(self.details / "probes.npz", read_counts)[1]

    @cached_property
    def confusion(self) -> dict[str, NDArray[np.int64]]:
        """Pixel counts (K, K) per protocol, row = truth."""
        return self._read(self.details / "confusion.npz", _arrays)

    def error(self, name: str, problem: str) -> PipelineError:
        """The error for a file of `details`."""
        return self._error(self.details / name, problem)

    def require_consistent(self) -> None:
        """Raise PipelineError unless scores, counts per image and confusion matrices agree."""
        ids, counts = self.counts
        if len(ids) != self.record.images:
            raise self.error("per_image.npz", f"{len(ids)} images, but evaluation.json says {self.record.images}")
        for protocol in PROTOCOLS:
            totals = counts[protocol].total()
            measured, stated = float(miou(*totals)), self.record.scores[protocol].miou
            if not np.isclose(measured, stated, rtol=0, atol=1e-9):
                raise self.error("per_image.npz", f"{protocol}.miou is {measured}, but metrics.json says {stated}")
            if not all(map(np.array_equal, Counts.of_confusion(self.confusion[protocol]), totals)):
                raise self.error("confusion.npz", f"{protocol}: other pixel counts than per_image.npz")
        for name in (self.record.submission or {"files": {}})["files"].values():
            self._read(self.folder / name, _existing)

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.json"

    _last_written = _metrics

    @property
    def _recorded(self) -> Path:
        return self.details / "evaluation.json"


def finished_trainings(layout: Layout) -> Iterator[TrainingFiles]:
    """Every complete training below runs/train, by benchmark and seed."""
    for folder in sorted(layout.train("*", 0).parents[1].glob("*/*")):
        files = TrainingFiles(layout, folder.parent.name, int(folder.name)) if folder.name.isdecimal() else None
        if files is not None and files.is_complete:
            yield files


def late_loss(history: Sequence[Mapping[str, float]]) -> float:
    """Mean cross entropy of the final logits over the last quarter of the iterations: does the model fit its data?

    Variants of one seed see the same crops, so their values can be compared.
    """
    curve = pd.DataFrame(history, columns=["iteration", "loss_final"])
    late = curve["iteration"] > 0.75 * curve["iteration"].max()
    return round(float(curve["loss_final"][late].mean()), 4)


def write_counts(path: Path, ids: Sequence[str], counts: Mapping[str, Counts]) -> None:
    """Ids of N images and their counts (N, K) per protocol or probe, as .npz."""
    arrays = {f"{protocol}/{name}": part for protocol, c in counts.items() for name, part in c._asdict().items()}
    with new_file(path) as stream:
        np.savez_compressed(stream, ids=np.array(ids), **arrays)


def read_counts(path: Path) -> tuple[tuple[str, ...], dict[str, Counts]]:
    """What `write_counts` wrote."""
    arrays = _arrays(path)
    names = dict.fromkeys(key.partition("/")[0] for key in arrays if "/" in key)
    counts = {name: Counts(*(arrays[f"{name}/{part}"] for part in Counts._fields)) for name in names}
    return tuple(arrays["ids"].tolist()), counts


def _typed(kind: type[T], data: Mapping[str, Any]) -> T:
    """`data` as a dataclass that has exactly these fields."""
    names = {field.name for field in fields(kind)}
    if names != set(data):
        raise ValueError(f"missing {sorted(names - set(data))}, unknown {sorted(set(data) - names)}")
    return kind(**data)


def _json(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {type(data).__name__}")
    return data


def _arrays(path: Path) -> dict[str, NDArray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(path)
    return path
