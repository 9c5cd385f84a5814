"""The resumable training state: everything that the next iteration depends on, written atomically.

It is kept outside DVC's outs (DVC deletes those before a stage runs), under `runs/state/<benchmark>/<run key>/`. The
run key covers configuration, seed, data, initial weights, precision, devices and the code that dvc.yaml lists for the
stage `train`, so that a state can only be resumed by a run that would have produced it.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import pipeline
from pipeline.checkpoints.read import load_plain
from pipeline.checkpoints.starting import starting_weights
from pipeline.config import Benchmark, config_hash
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets.prepared import read_info
from pipeline.files.storage import file_digest, new_file, text_digest
from pipeline.layout import Layout
from pipeline.results.record import TrainingFiles
from pipeline.runtime.distributed import arithmetic
from pipeline.runtime.stage_code import code_digest

_ROOT = Path(pipeline.__file__).resolve().parents[1]  # of the repository that the running code belongs to
_FILE = "state.pt"


class Identity(NamedTuple):
    """What one exact training is known by, and the file that it starts from, if any."""

    run_key: str
    fingerprint: str  # of the prepared data
    precision: str  # see `pipeline.runtime.distributed.arithmetic`
    weights: Path | None  # a trained network (`start`), or the weights of encoder or checkpoint as downloaded
    weights_sha256: str | None


def identify(layout: Layout, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> Identity:
    """The training that `benchmark` and `seed` ask for with the files that are here.

    Raises PipelineError when data or weights are missing or were changed.
    """
    path, digest = None, None
    if benchmark.start is not None:
        files = TrainingFiles(layout, benchmark.start.benchmark, seed)
        files.require({"config_hash": benchmark.start.config_hash}, f"the study of {benchmark.id}")
        path = files.existing_weights("last")
        digest = file_digest(path)
    elif weights := starting_weights(layout, benchmark):
        path, digest = layout.home / weights.path, weights.sha256
    fingerprint, precision = read_info(layout.prepared(benchmark.dataset.name))["fingerprint"], arithmetic(runtime)
    key = run_key(benchmark, seed, fingerprint, precision, digest)
    return Identity(key, fingerprint, precision, path, digest)


def run_key(benchmark: Benchmark, seed: int, fingerprint: str, precision: str, weights: str | None = None) -> str:
    """Twelve hex digits that name one exact training run; weights: sha256. The others as in `Identity`."""
    parts = [config_hash(benchmark), seed, fingerprint, precision, weights, _loaded_code_digest()]
    return text_digest(json.dumps(parts))[:12]


@functools.cache
def _loaded_code_digest() -> str:
    """Taken once: a process goes on with the code it loaded, whatever is edited meanwhile."""
    return code_digest(_ROOT, "train")


def random_state() -> dict[str, Any]:
    """State of every generator the main process may draw from, in types that a weights-only load accepts."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Inverse of `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])  # it may have been saved with more GPUs


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a full disk or a kill at any moment leaves the old or the new one, never half of one."""
    with new_file(folder / _FILE) as stream:
        torch.save(state, stream)


def has_state(folder: Path) -> bool:
    """Whether a training would resume from `folder`."""
    return (folder / _FILE).exists()


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state saved in `folder`, or None when there is none. Nothing in it is executed.

    Raises PipelineError when the file is damaged.
    """
    if not has_state(folder):
        return None
    return load_plain(folder / _FILE, "the state of a training; delete it to train from the beginning")


def drop_state(folder: Path) -> None:
    """Remove the state of a finished run, so that a forced rerun starts from the beginning.

    The file that says where to resume goes first: an interrupt in between must not leave a state without best weights.
    """
    (folder / _FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
