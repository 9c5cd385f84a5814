"""Chapter about what the memories hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting import figures
from pipeline.reporting.page import Figure, Section, Table, section
from pipeline.reporting.study import Study
from pipeline.reporting.words import NONE, listing, plain
from pipeline.results.record import Memory

_FIRST = "After the first epoch"


def inside(study: Study) -> Section | None:
    """Cosines between the classes' vectors after the first epoch and at the end."""
    variants = [v for v in study.ran if v.benchmark.memory is not None and v.runs[0].training is not None]
    if not variants:
        return None
    rows, blocks = [], []
    for variant in variants:
        names = variant.spec.classes
        for run in variant.runs:
            stored = run.training.memory
            states, early = _states(stored), _early(stored)
            moved = NONE
            if early is not None:
                moved = _mean((_unit(stored.first_epoch) * _unit(stored.final)).sum(axis=-1)[early])
            untouched = [plain(names[k]) for k in np.flatnonzero(~stored.touched.any(axis=1))]
            final = states["At the end"]
            rows.append(
                {
                    "Variant": f"`{variant.name}`",
                    "Seed": str(run.seed),
                    "Mean cosine, first epoch": _mean(_off_diagonal(states[_FIRST])) if _FIRST in states else NONE,
                    "At the end": _mean(_off_diagonal(final)),
                    "Own vector, first to end": moved,
                    "Closest classes at the end": plain(_closest(final, names)),
                    "Never written": listing(untouched),
                }
            )
        states = _states(variant.runs[0].training.memory)
        means = [f"{_mean(_off_diagonal(values))} {title[0].lower()}{title[1:]}" for title, values in states.items()]
        blocks.append(
            Figure(
                f"memory-{variant.name}",
                partial(figures.cosines, list(states.items()), names),
                f"Cosine between the class vectors of {variant.name}: mean off the diagonal {', '.join(means)}. "
                f"Closest at the end: {_closest(states['At the end'], names)}.",
                f"{plain(variant.name)}, seed {variant.runs[0].seed}: cosine between class vectors. Grey: not written "
                "yet.",
            )
        )
    imported = any(variant.imported for variant in variants)
    return section("inside", "inside", table=Table("State of the memory", rows), blocks=blocks, imported=imported)


def class_cosines(memory: NDArray[np.float32], written: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cosine (K, K) between classes, mean over pairs of slots; NaN where a class has no written slot.

    memory: (K, S, C); written: (K, S).
    """
    classes, slots, channels = memory.shape
    unit = _unit(memory).reshape(classes * slots, channels)
    known = written.reshape(-1).astype(np.float64)
    pairs = np.outer(known, known)  # (K * S, K * S)
    cosine = (unit @ unit.T) * pairs

    def per_class(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values.reshape(classes, slots, classes, slots).sum(axis=(1, 3))

    number = per_class(pairs)
    return np.divide(per_class(cosine), number, out=np.full(number.shape, np.nan), where=number > 0)


def _states(stored: Memory) -> dict[str, NDArray[np.float64]]:
    """Cosines (K, K) after the first epoch, where that is known, and at the end."""
    early = _early(stored)
    first = {} if early is None else {_FIRST: class_cosines(stored.first_epoch, early)}
    return first | {"At the end": class_cosines(stored.final, stored.touched)}


def _early(stored: Memory) -> NDArray[np.bool_] | None:
    """Slots (K, S) that the first epoch wrote: a vector that is zero after it was not written yet; None: imported."""
    return None if stored.first_epoch is None else stored.touched & (stored.first_epoch != 0).any(axis=-1)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    values = vectors.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _off_diagonal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    cells = values[~np.eye(len(values), dtype=bool)]
    return cells[~np.isnan(cells)]


def _mean(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f}" if values.size else NONE


def _closest(values: NDArray[np.float64], names: Sequence[str]) -> str:
    """The two classes with the largest cosine."""
    cells = np.where(np.triu(np.ones_like(values, dtype=bool), 1) & ~np.isnan(values), values, -np.inf)
    i, j = np.unravel_index(int(cells.argmax()), cells.shape)
    return f"{names[i]} / {names[j]} ({cells[i, j]:.2f})" if np.isfinite(cells[i, j]) else NONE
