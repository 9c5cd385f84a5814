"""Chapter 8: what the memory holds."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Block, Column, Figure, Section, Table, Text
from pipeline.reporting.results import Memory, Result
from pipeline.reporting.style import SEQUENTIAL, canvas, matrix, styled, to_png
from pipeline.reporting.wording import NONE, listing, plain


def section(analysis: Analysis) -> Section:
    """Cosine between the classes' vectors after the first epoch and at the end."""
    results = [result for result in analysis.study.results if result.runs[0].memory is not None]
    if not results:
        return Section("memory", "Inside the memory", (Text("No chosen benchmark has a memory."),))
    columns = (
        *(Column("Benchmark", number=False), Column("Seed"), Column("Mean cosine, first epoch"), Column("At the end")),
        *(Column("Own vector, first to end"), Column("Closest classes at the end", number=False)),
        Column("Never touched", number=False),
    )
    rows = tuple(row for result in results for row in _rows(result))
    blocks: list[Block] = [
        Text(
            "Cosine similarity between the stored vectors of two classes (mean over slots where there are several): "
            "the lower off the diagonal, the better the memory tells classes apart. After a ReLU all cosines lie "
            "between 0 and 1. *Own vector* compares each class with itself after the first epoch: near 1, "
            "it has hardly moved. A class never touched keeps a zero vector and adds nothing. Of an imported "
            "checkpoint only the end is known."
        ),
        Table("State of the memory", columns, rows),
        *(_figure(result) for result in results),
    ]
    return Section("memory", "Inside the memory", tuple(blocks))


def class_cosines(memory: NDArray[np.float32], touched: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cosine (K, K) between classes, mean over pairs of slots; NaN where a class has no touched slot.

    memory: (K, S, C); touched: (K, S).
    """
    classes, slots, channels = memory.shape
    unit = _unit(memory).reshape(classes * slots, channels)
    known = touched.reshape(-1).astype(np.float64)
    pairs = np.outer(known, known)
    cosine = (unit @ unit.T) * pairs

    def per_class(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values.reshape(classes, slots, classes, slots).sum(axis=(1, 3))

    number = per_class(pairs)
    return np.divide(per_class(cosine), number, out=np.full(number.shape, np.nan), where=number > 0)


def _unit(memory: NDArray[np.float32]) -> NDArray[np.float64]:
    values = memory.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _states(memory: Memory) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Cosines (K, K) after the first epoch, where it is known, and at the end."""
    final = class_cosines(memory.final, memory.touched)
    if memory.first_epoch is None:
        return None, final
    return class_cosines(memory.first_epoch, _early(memory, memory.first_epoch)), final


def _early(memory: Memory, first_epoch: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Slots (K, S) that the first epoch touched: a zero vector after it was not touched yet."""
    return memory.touched & (first_epoch != 0).any(axis=-1)


def _rows(result: Result) -> list[tuple[str, ...]]:
    rows = []
    for run in result.runs:
        if run.memory is None:
            continue
        first, final = _states(run.memory)
        early, moved = NONE, NONE
        if first is not None and run.memory.first_epoch is not None:
            own = (_unit(run.memory.first_epoch) * _unit(run.memory.final)).sum(axis=-1)
            early, moved = _number(_off_diagonal(first)), _number(own[_early(run.memory, run.memory.first_epoch)])
        untouched = [plain(result.spec.classes[k]) for k in np.flatnonzero(~run.memory.touched.any(axis=1))]
        rows.append(
            (
                f"`{result.id}`",
                str(run.seed),
                early,
                _number(_off_diagonal(final)),
                moved,
                plain(_closest(final, result.spec.classes)),
                listing(untouched),
            )
        )
    return rows


def _off_diagonal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    cells = values[~np.eye(len(values), dtype=bool)]
    return cells[~np.isnan(cells)]


def _number(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f}" if values.size else NONE


def _closest(values: NDArray[np.float64], names: tuple[str, ...]) -> str:
    """The two classes with the largest cosine."""
    cells = np.where(np.triu(np.ones_like(values, dtype=bool), 1) & ~np.isnan(values), values, -np.inf)
    i, j = np.unravel_index(int(cells.argmax()), cells.shape)
    return f"{names[i]} / {names[j]} ({cells[i, j]:.2f})" if np.isfinite(cells[i, j]) else NONE


def _figure(result: Result) -> Figure:
    run = result.runs[0]
    if run.memory is None:
        raise ValueError(f"{result.id} has no memory")
    first, final = _states(run.memory)
    states = [("At the end", final)] if first is None else [("After the first epoch", first), ("At the end", final)]
    means = [f"{_number(_off_diagonal(values))} {title[0].lower()}{title[1:]}" for title, values in states]
    return Figure(
        f"memory-{result.id}",
        partial(_draw, states, result.spec.classes),
        f"Cosine between the class vectors of {result.id}: mean off the diagonal {', '.join(means)}. "
        f"Closest at the end: {_closest(final, result.spec.classes)}.",
        f"{result.id}, seed {run.seed}: cosine between class vectors. Grey: not touched yet.",
    )


@styled
def _draw(states: list[tuple[str, NDArray[np.float64]]], names: tuple[str, ...]) -> bytes:
    figure = canvas(6.25 * len(states), 5.8)
    lowest = min(float(np.nanmin(values, initial=1.0)) for _, values in states)
    limits = (10.0 * np.floor(10 * lowest), 100.0)  # one scale for both, as wide as the values need
    for axes, (title, values) in zip(figure.subplots(1, len(states), squeeze=False)[0], states, strict=True):
        matrix(axes, 100 * values, names, SEQUENTIAL, limits, signed=False)
        axes.set_title(f"{title} (cosine × 100)")
    return to_png(figure)
