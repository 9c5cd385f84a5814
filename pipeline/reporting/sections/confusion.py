"""Chapter 6: which classes are taken for which."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.analysis import PRIMARY, Analysis
from pipeline.reporting.content import Block, Column, Figure, Section, Table, Text
from pipeline.reporting.results import Pair, Result
from pipeline.reporting.style import DIVERGING, SEQUENTIAL, canvas, matrix, styled, to_png
from pipeline.reporting.wording import PROTOCOLS, percent, plain, points

CHANGES = 6  # rows of the table of largest changes


def section(analysis: Analysis) -> Section:
    """Row-normalised matrix with memory and the change against the baseline, per pair."""
    blocks: list[Block] = [
        Text(
            f"Of all pixels of a true class (row), the percentage given to each predicted class (column); "
            f"{PROTOCOLS[PRIMARY]}, pixels of all seeds together. Grey rows: the class is not in the evaluated split."
        )
    ]
    for pair in analysis.study.pairs:
        blocks += _pair(analysis, pair)
    blocks += [_single(result) for result in analysis.study.unpaired]
    return Section("confusion", "Confusion", tuple(blocks))


def normalised(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows (K, K) as shares of the true class; NaN where a class has no pixel."""
    total = confusion.sum(axis=1, keepdims=True).astype(np.float64)
    return np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)


def _pair(analysis: Analysis, pair: Pair) -> list[Block]:
    label, names = analysis.label(pair), pair.memory.spec.classes
    before, after = (normalised(side.confusion(PRIMARY)) for side in (pair.baseline, pair.memory))
    changes = _largest_changes(before, after)
    told = "; ".join(f"{names[i]} as {names[j]} {points(after[i, j] - before[i, j], 1)} points" for i, j in changes[:3])
    figure = Figure(
        f"confusion-{pair.memory.id}",
        partial(_draw, after, after - before, names),
        f"Confusion matrix of {label} with memory, and its change against the baseline. "
        f"{_worst(after, names)} Largest changes: {told or 'none'}.",
        f"{label}. Left: with memory, percent of the true class. Right: change against the baseline in points; off the "
        "diagonal, blue means fewer mistakes of that kind.",
    )
    rows = tuple(
        (
            f"{plain(names[i])} taken for {plain(names[j])}",
            *(percent(values[i, j], 1) for values in (before, after)),
            points(after[i, j] - before[i, j], 1),
        )
        for i, j in changes
    )
    columns = (Column("Mistake", number=False), Column("Without %"), Column("With %"), Column("Change, points"))
    table = Table(f"Mistakes that changed most, {label} (percent of the true class)", columns, rows)
    return [figure, table] if rows else [figure]


def _single(result: Result) -> Figure:
    values = normalised(result.confusion(PRIMARY))
    return Figure(
        f"confusion-{result.id}",
        partial(_draw, values, None, result.spec.classes),
        f"Confusion matrix of {result.id}. {_worst(values, result.spec.classes)}",
        f"{result.id}, percent of the true class.",
    )


def _largest_changes(before: NDArray, after: NDArray) -> list[tuple[int, int]]:
    """Off-diagonal cells by absolute change, largest first."""
    change = np.nan_to_num(np.abs(after - before))
    np.fill_diagonal(change, 0.0)
    flat = np.argsort(-change, axis=None, kind="stable")[:CHANGES]
    cells = zip(*np.unravel_index(flat, change.shape), strict=True)
    return [(int(i), int(j)) for i, j in cells if change[i, j] > 0]


def _worst(values: NDArray, names: tuple[str, ...]) -> str:
    mistakes = np.nan_to_num(values.copy())
    np.fill_diagonal(mistakes, 0.0)
    i, j = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return f"Most frequent mistake: {percent(values[i, j], 1)} % of {names[i]} taken for {names[j]}."


@styled
def _draw(values: NDArray, change: NDArray | None, names: tuple[str, ...]) -> bytes:
    figure = canvas(12.5 if change is not None else 6.5, 6.2)
    axes = np.atleast_1d(figure.subplots(1, 1 if change is None else 2))
    matrix(axes[0], 100 * values, names, SEQUENTIAL, (0.0, 100.0), signed=False)
    axes[0].set_title("Percent of the true class")
    axes[0].set_ylabel("true class")
    if change is not None:
        limit = max(5.0, float(np.nanmax(np.abs(100 * change))))
        matrix(axes[1], 100 * change, names, DIVERGING, (-limit, limit), signed=True)
        axes[1].set_title("Change by the memory, points")
    for ax in axes:
        ax.set_xlabel("predicted class")
    return to_png(figure)
