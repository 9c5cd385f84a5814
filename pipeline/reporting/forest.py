"""Forest plot: differences with their intervals, one row each."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.reporting.style import BASELINE, INK, MEMORY, MUTED, canvas, rows_axis, styled, to_png
from pipeline.reporting.wording import points, points_interval
from pipeline.results.statistics import Estimate


@styled
def forest(rows: Sequence[tuple[str, Estimate]], axis: str) -> bytes:
    """PNG of (label, difference) rows: filled where the interval excludes zero, small dots for single seeds.

    axis: what the horizontal axis says.
    """
    figure = canvas(8, 1.1 + 0.55 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for row, (_, gain) in enumerate(rows):
        colour = (MEMORY if gain.value > 0 else BASELINE) if gain.resolved else MUTED
        axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, linewidth=2.4)
        fill = colour if gain.resolved else "white"
        axes.plot(100 * gain.value, row, "D", color=colour, markerfacecolor=fill, markersize=8, markeredgewidth=1.8)
        axes.plot(100 * gain.per_seed, [row + 0.27] * len(gain.per_seed), ".", color=colour, markersize=5)
        axes.annotate(
            f"{points(gain.value)}  {points_interval(gain.low, gain.high)}",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
    rows_axis(axes, [label for label, _ in rows])
    axes.set_xlabel(axis)
    return to_png(figure)
