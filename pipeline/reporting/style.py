"""One look for all figures: colours that survive colour blindness, a white card that suits light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

BASELINE = "#2f6db3"  # blue: without memory, everywhere in the report
MEMORY = "#d9611a"  # orange: with memory
INK = "#20242c"
MUTED = "#6b7280"
GRID = "#e4e7ec"
DPI = 120

ABSENT = "#d3d6dc"  # matrix cells without a value
SEQUENTIAL: Colormap = LinearSegmentedColormap.from_list(
    "ink", ["#ffffff", "#b9cfe8", "#4f86c0", "#163a66"]
).with_extremes(bad=ABSENT)
DIVERGING: Colormap = LinearSegmentedColormap.from_list(
    "blue-orange", ["#1d4e89", BASELINE, "#cfdff0", "#ffffff", "#f8d9c4", MEMORY, "#9c3d06"]
).with_extremes(bad=ABSENT)

STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b6bcc6",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

# As a decorator: the function draws in this style and leaves the caller's matplotlib alone.
styled = mpl.rc_context(STYLE)


def canvas(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure) -> bytes:
    """PNG without date or software stamp: equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Horizontal rows named by `labels`, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def matrix(
    axes: Axes, values: NDArray, labels: Sequence[str], cmap: Colormap, limits: tuple[float, float], signed: bool
) -> None:
    """A square matrix (K, K) with class names when they fit, and numbers in its cells when those fit."""
    size = len(labels)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=cmap, vmin=limits[0], vmax=limits[1])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if size <= 40:
        small = 9 if size <= 15 else 6
        axes.set_xticks(range(size), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
        axes.set_yticks(range(size), labels, fontsize=small)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    if size > 15:
        return
    middle, span = sum(limits) / 2, limits[1] - limits[0]
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value) or (text := f"{value:+.0f}" if signed else f"{value:.0f}") in ("0", "+0", "-0"):
            continue
        dark = abs(value) > 0.62 * limits[1] if signed else value > middle + 0.05 * span
        colour = "white" if dark else INK
        axes.text(j, i, text.replace("-", "−"), ha="center", va="center", fontsize=8, color=colour)


def patches(colours: Sequence[tuple[str, str]]) -> list[Patch]:
    """Legend entries from (label, colour)."""
    return [Patch(facecolor=colour, edgecolor="#9aa1ac", linewidth=0.5, label=label) for label, colour in colours]
