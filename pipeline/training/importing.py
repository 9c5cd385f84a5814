"""Import a published checkpoint in place of a training: the same files, from the authors' weights (mode import)."""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath

import torch

from pipeline.checkpoints.key_names import contents, from_published
from pipeline.checkpoints.planned import WeightFile, downloaded_weights
from pipeline.checkpoints.read import StateDict, read_state_dict
from pipeline.config import Benchmark, benchmark_ids, load_benchmark
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor
from pipeline.results.record import TrainingFiles
from pipeline.training.loop import Progress, peak_memory, save_weights
from pipeline.training.outcome import cost_now, memory_record, training_record
from pipeline.training.state import identify

_AUXILIARY = "auxiliary_decoder."
_POSITIONS = "encoder.model.pos_embed"  # of ViT
_SHOWN = 3  # offending keys in an error


def import_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> Path:
    """Convert the benchmark's published checkpoint into the files of `runs/train`; returns their folder.

    `last` and `best` are the same weights, the curves have no rows. Raises PipelineError, saying what the file is and
    which benchmark it fits, unless its keys and shapes are exactly those of the benchmark's network.
    """
    started = datetime.datetime.now(datetime.UTC)
    layout = Layout(root)
    identity = identify(layout, benchmark, seed, runtime)
    file = downloaded_weights(layout)[benchmark.id]
    _require_own_name(root, benchmark, file)
    model = load_published(root, benchmark, identity.weights)
    files = TrainingFiles(layout, benchmark.id, seed)
    save_weights(model, files.weights("last"))
    shutil.copyfile(files.weights("last"), files.weights("best"))
    checkpoint = {"url": file.url, "file": PurePath(file.path).name, "bytes": file.bytes, "sha256": file.sha256}
    checkpoint["generation"] = file.generation
    cpu = torch.device("cpu")
    seconds = (datetime.datetime.now(datetime.UTC) - started).total_seconds()
    progress = Progress(seconds=seconds, peak_memory=peak_memory(cpu))
    classes = get_dataset(benchmark.dataset.name).classes
    record = training_record(benchmark, model, seed, identity, classes, progress, checkpoint)
    files.write(benchmark, record, cost_now(root, cpu, started, progress), memory_record(model, progress), [], [])
    return files.folder


def load_published(root: Path, benchmark: Benchmark, path: Path) -> Segmentor:
    """The benchmark's segmentor with the weights of a file under the authors' keys, on the CPU.

    Auxiliary heads are dropped when the network was built without. Raises PipelineError for any other difference in
    keys or shapes, and for weights that are not finite.
    """
    state = read_state_dict(path)
    try:
        model, renamed = _fitted(benchmark, state)
    except PipelineError as error:
        fitting = ", ".join(_fitting_rows(root, state))
        raise PipelineError(
            f"{path}: not the checkpoint of {benchmark.id}: {error}\nThe file has {contents(state)}; it fits "
            f"{fitting or 'no benchmark of params/'}. Choose that benchmark, or correct `weights:` in params.yaml or "
            "`published.checkpoints` of the benchmark"
        ) from error
    broken = sorted(key for key, value in renamed.items() if not torch.isfinite(value).all())
    if broken:
        raise PipelineError(
            f"{path}: {len(broken)} tensors hold NaN or infinity ({', '.join(broken[:_SHOWN])}); the file is "
            "damaged, or its training failed: fetch it again"
        )
    model.load_state_dict(renamed, assign=True)
    return model


def _fitted(benchmark: Benchmark, state: StateDict) -> tuple[Segmentor, StateDict]:
    """The network on the meta device and, under its keys, the weights for it."""
    num_classes = len(get_dataset(benchmark.dataset.name).classes)
    with torch.device("meta"):
        model = build_segmentor(benchmark, num_classes, pretrained=False)
    own = model.state_dict()
    if not len(model.auxiliary):
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
    renamed = from_published(state, own)
    misshapen = {
        key: f"{key} is {tuple(renamed[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if renamed[key].shape != value.shape
    }
    if misshapen:
        shown, remedy = "; ".join([*misshapen.values()][:_SHOWN]), ""
        if _POSITIONS in misshapen and renamed[_POSITIONS].ndim == 3 and renamed[_POSITIONS].shape[1] > 1:
            grid = math.isqrt(renamed[_POSITIONS].shape[1] - 1)  # without the class token
            remedy = f"; if that is all that differs, set `encoder: {{options: {{grid: {grid}}}}}` in the benchmark"
        raise PipelineError(f"{len(misshapen)} tensors of another shape ({shown}){remedy}")
    # In the network's own types: a file may hold half precision, and the memory as a parameter.
    return model, {key: renamed[key].detach().to(value.dtype) for key, value in own.items()}


def _fitting_rows(root: Path, state: StateDict) -> list[str]:
    """Ids of the published benchmarks whose network takes the file; seconds each, so only the likely ones are built."""
    found = contents(state)
    fitting = []
    for benchmark in _published_rows(root):
        classes = len(get_dataset(benchmark.dataset.name).classes)
        if classes != found.num_classes or (benchmark.memory and benchmark.memory.kind) != found.memory:
            continue
        try:
            _fitted(benchmark, state)
        except PipelineError:
            continue  # that it does not fit is the answer
        fitting.append(benchmark.id)
    return fitting


def _require_own_name(root: Path, benchmark: Benchmark, file: WeightFile) -> None:
    """Rows that differ in their output stride alone have interchangeable weights: only a file's name tells them."""
    name = PurePath(file.path).name
    owners = [
        row.id for row in _published_rows(root) if name in {PurePath(url).name for url in row.published.checkpoints}
    ]
    if owners and benchmark.id not in owners:
        raise PipelineError(
            f"{file.path}: by its name this is the checkpoint of {', '.join(owners)}, not of {benchmark.id}; correct "
            "`weights:` in params.yaml, or rename the file if its name is wrong"
        )


def _published_rows(root: Path) -> Iterator[Benchmark]:
    for benchmark_id in benchmark_ids(root):
        try:
            row = load_benchmark(root, benchmark_id)
        except PipelineError:
            continue  # a benchmark that was not chosen may be unfinished; `plan` reports it once it is
        if row.published is not None and row.published.checkpoints:
            yield row
