"""Golden files of the authors' code: inputs and weights are not stored but drawn from their names.

A name seeds Philox with its crc32; the top 53 bits of each 64-bit word give a uniform number, stretched to zero mean
and unit variance. The format is described in ../shared/goldens/README.md.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from helpers.project import ROOT
from pipeline.checkpoints.key_names import from_published
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import FeatureMemory

SHARED = ROOT.parent / "shared"
# Folders; several are separated like those of PATH.
GOLDENS = [
    Path(folder)
    for folder in os.environ.get("GOLDENS", f"{SHARED / 'goldens'}{os.pathsep}{SHARED / 'goldens-plusplus'}").split(
        os.pathsep
    )
]
OWN_GOLDENS = ROOT / "tests" / "goldens"  # the small numeric ones, kept with the project

# The authors' losses, those of MCIBI++ too, and ours.
TERMS = {"loss_cls_stage2": "final", "loss_cls_stage1": "coarse", "loss_memory": "consistency"}
TERMS |= {"loss_cls": "final", "loss_pr": "coarse", "loss_cwi": "context"}

_STRATEGIES = {"cosine_similarity": "cosine", "mean": "mean"}


class Golden(NamedTuple):
    meta: dict
    arrays: dict[str, np.ndarray]
    state: dict[str, torch.Tensor]  # a checkpoint in the published key format


def golden_files(kind: str, pattern: str = "*.npz") -> list[Path]:
    """Every file of a kind that is on disk, each name once."""
    found = {path.name: path for folder in (OWN_GOLDENS, *GOLDENS) for path in (folder / kind).glob(pattern)}
    return [found[name] for name in sorted(found)]


def read_golden(path: Path, prefix: str = "") -> Golden:
    """`prefix` completes the manifest's keys to the published ones."""
    with np.load(path) as archive:
        arrays = dict(archive)
    meta, manifest = (json.loads(arrays.pop(name).tobytes()) if name in arrays else {} for name in ("meta", "manifest"))
    stored = {key.removeprefix("bn/"): arrays.pop(key) for key in list(arrays) if key.startswith("bn/")}
    state = {}
    for key, shape, *_ in manifest:
        full = prefix + key
        state[full] = torch.from_numpy(stored[key]) if key in stored else weight(full, tuple(shape))
    return Golden(meta, arrays, state)


def replayed_updates(
    path: Path, update: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, str], torch.Tensor]
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Per step of a memory/update_*.npz golden: the memory after `update`, starting from zeros, and the authors'."""
    meta, arrays, _ = read_golden(path)
    memory = torch.zeros(meta["K"], meta["slots"], meta["C"])
    for step in range(meta["steps"]):
        labels = torch.from_numpy(arrays[f"labels{step}"]).long()
        labels[labels == meta["ignore_index"]] = IGNORE_INDEX
        momentum = meta["base_momentum"] / meta["base_lr"] * float(arrays[f"lr{step}"])
        features = torch.from_numpy(arrays[f"feats{step}"])
        memory = update(memory, features, labels, momentum, _STRATEGIES[meta["strategy"]])
        yield memory, arrays[f"memory{step}"]


def golden_memory(path: Path) -> tuple[FeatureMemory, list[torch.Tensor | None], np.ndarray]:
    """Of a memory/forward_*.npz golden: the module, the arguments of its forward pass, and the authors' output."""
    meta, arrays, state = read_golden(path, prefix="memory_module.")
    context = meta["context_within_image"]
    aggregation = "hard" if meta["hard"] else "soft"
    module = FeatureMemory(
        meta["K"], meta["C"], meta["transform_channels"], meta["slots"], aggregation, fuse_context=context
    ).eval()
    renamed = from_published(state, [f"memory.{key}" for key in module.state_dict()])
    module.load_state_dict({key.removeprefix("memory."): value for key, value in renamed.items()})
    inputs = [torch.from_numpy(arrays[name]) for name in ("feats", "logits", "context")]
    return module, inputs if context else [*inputs[:2], None], arrays["out"]


def unit(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """float32 tensor of uniform numbers in [-sqrt(3), sqrt(3)]."""
    words = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(math.prod(shape))
    uniform = (words >> np.uint64(11)) / 2.0**53
    values = (2 * uniform - 1) * math.sqrt(3)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Value of a state-dict entry by its published key."""
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind in ("running_mean", "running_var"):
        return torch.full(shape, float(kind == "running_var"))
    values = unit(key, shape)
    if key.endswith("memory_module.memory"):
        return values.abs()
    if kind in ("pos_embed", "cls_token"):
        return 0.02 * values
    if len(shape) > 1:
        return values * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    return 1 + 0.1 * values if kind == "weight" else 0.1 * values


def blocky_labels(name: str, shape: tuple[int, int, int], num_classes: int, block: int, ignore: float) -> torch.Tensor:
    """(B, H, W) int64 label map in squares of `block` pixels; a share `ignore` of single pixels is set to ignore."""
    batch, height, width = shape
    coarse = unit(name, (batch, -(-height // block), -(-width // block)))
    classes = (_to_unit_interval(coarse) * num_classes).floor().clamp(0, num_classes - 1)
    labels = F.interpolate(classes[:, None], scale_factor=block, mode="nearest")[:, 0, :height, :width].long()
    labels[_to_unit_interval(unit(f"{name}/ignore", shape)) < ignore] = IGNORE_INDEX
    return labels


def _to_unit_interval(values: torch.Tensor) -> torch.Tensor:
    return (values / np.sqrt(3) + 1) / 2
