"""All figures, as PNG: numbers in, bytes out.

Colours suit colour-blind readers; the white background suits light and dark pages. Equal numbers give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from pipeline.config.schema import PROTOCOL_NAMES
from pipeline.datasets import IGNORE_INDEX, DatasetSpec
from pipeline.datasets.spec import colourise
from pipeline.reporting.study import Variant
from pipeline.reporting.words import class_share, percent, points, points_interval
from pipeline.results.statistics import Estimate

BASELINE = "#2f6db3"  # blue: without memory, the first side of a pair, and losses
MEMORY = "#d9611a"  # orange: with memory, the second side of a pair, and gains
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
_styled = mpl.rc_context(STYLE)


def _canvas(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def _to_png(figure: Figure) -> bytes:
    """PNG without date or software stamp: equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Horizontal rows named by `labels`, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _matrix(
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
    axes.get_figure().colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    if size > 15:
        return
    middle, span = sum(limits) / 2, limits[1] - limits[0]
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value) or (text := f"{value:+.0f}" if signed else f"{value:.0f}") in ("0", "+0", "-0"):
            continue
        dark = abs(value) > 0.62 * limits[1] if signed else value > middle + 0.05 * span
        colour = "white" if dark else INK
        axes.text(j, i, text.replace("-", "−"), ha="center", va="center", fontsize=8, color=colour)


def _patches(colours: Sequence[tuple[str, str]]) -> list[Patch]:
    """Legend entries from (label, colour)."""
    return [Patch(facecolor=colour, edgecolor="#9aa1ac", linewidth=0.5, label=label) for label, colour in colours]


def _colour(variant: Variant) -> str:
    return MEMORY if variant.benchmark.memory else BASELINE


def _gain_colour(gain: Estimate, unresolved: str) -> str:
    return (MEMORY if gain.value > 0 else BASELINE) if gain.resolved else unresolved


def _memory_legend(variants: Sequence[Variant], **options: str) -> list[Line2D]:
    """One entry for variants with memory and one for those without, as far as there are any."""
    words = {MEMORY: "with memory", BASELINE: "without memory"}
    present = {_colour(variant) for variant in variants}
    return [Line2D([], [], color=c, label=label, **options) for c, label in words.items() if c in present]


@_styled
def forest(rows: Sequence[tuple[str, Estimate]]) -> bytes:
    """(label, difference) rows with intervals: filled where resolved, small dots for single seeds."""
    figure = _canvas(8, 1.1 + 0.55 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for row, (_, gain) in enumerate(rows):
        colour = _gain_colour(gain, MUTED)
        if gain.covers_seeds:
            axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, linewidth=2.4)
        fill = colour if gain.resolved else "white"
        axes.plot(100 * gain.value, row, "D", color=colour, markerfacecolor=fill, markersize=8, markeredgewidth=1.8)
        axes.plot(100 * gain.per_seed, [row + 0.27] * len(gain.per_seed), ".", color=colour, markersize=5)
        text = points(gain.value) + f"  {points_interval(gain)}" * gain.covers_seeds
        axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    _rows_axis(axes, [label for label, _ in rows])
    axes.set_xlabel("← worse      difference in mIoU points      better →")
    return _to_png(figure)


@_styled
def dots(rows: Sequence[tuple[Variant, dict[str, Estimate]]]) -> bytes:
    """mIoU of variants, one axis per protocol: mean with interval, and single seeds as small dots."""
    figure = _canvas(9, 1.3 + 0.42 * len(rows))
    for axes, (protocol, title) in zip(figure.subplots(1, 2, sharey=True), PROTOCOL_NAMES.items(), strict=True):
        for row, (variant, estimates) in enumerate(rows):
            score, colour = estimates[protocol], _colour(variant)
            axes.plot([100 * score.low, 100 * score.high], [row, row], color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(100 * score.value, row, "o", color=colour, markersize=8)
            axes.plot(100 * score.per_seed, [row + 0.24] * len(score.per_seed), ".", color=colour, markersize=4)
        axes.set_title(title.capitalize())
        axes.set_xlabel("mIoU %")
        _rows_axis(axes, [variant.name for variant, _ in rows])
    handles = _memory_legend([variant for variant, _ in rows], marker="o", linestyle="none")
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return _to_png(figure)


@dataclass(frozen=True)
class ClassBar:
    """One class of a comparison; IoU and share as fractions."""

    name: str
    share: float
    before: float
    after: float
    gain: Estimate


@_styled
def class_bars(bars: Sequence[ClassBar]) -> bytes:
    """IoU of both sides, and beside it the gain with its interval."""
    figure = _canvas(9.5, 1.2 + 0.36 * len(bars))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    rows = np.arange(len(bars))
    left.barh(rows - 0.19, [100 * bar.before for bar in bars], height=0.36, color=BASELINE)
    left.barh(rows + 0.19, [100 * bar.after for bar in bars], height=0.36, color=MEMORY)
    left.set_xlim(0, 100)
    left.set_xlabel("IoU %")
    figure.legend(handles=_patches([("without", BASELINE), ("with", MEMORY)]), loc="outside upper left", ncols=2)
    right.axvline(0, color=INK, linewidth=1)
    for row, gain in enumerate(bar.gain for bar in bars):
        right.barh(row, 100 * gain.value, height=0.55, color=_gain_colour(gain, "#b7bdc8"))
        if gain.covers_seeds:
            colour = INK if gain.resolved else MUTED
            right.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, linewidth=1.2)
    right.set_xlabel("difference in points (grey: not resolved)")
    for axes in (left, right):
        _rows_axis(axes, [f"{bar.name}  ({class_share(bar.share)} %)" for bar in bars])
    return _to_png(figure)


@_styled
def curves(variants: Sequence[Variant]) -> bytes:
    """Training loss, validation mIoU, learning rate and momentum of the memory over iterations, one line per seed."""
    figure = _canvas(10.5, 3.2)
    loss, miou, rate = figure.subplots(1, 3)
    momentum = rate.twinx()
    momentum.grid(visible=False)
    shows_momentum = False
    for variant in variants:
        colour = _colour(variant)
        for files in (run.training for run in variant.runs if run.training is not None):
            history, validation = files.history, files.validation
            smooth = history["loss"].rolling(max(1, len(history) // 20), min_periods=1, center=True).mean()
            loss.plot(history["iteration"], history["loss"], color=colour, linewidth=0.6, alpha=0.3)
            loss.plot(history["iteration"], smooth, color=colour, linewidth=1.6)
            miou.plot(validation["iteration"], 100 * validation["miou"], color=colour, marker=".", linewidth=1.4)
            rate.plot(history["iteration"], history["lr"], color=colour, linewidth=1.4)
            if history["memory_momentum"].notna().any():
                shows_momentum = True
                momentum.plot(history["iteration"], history["memory_momentum"], color=colour, linewidth=1.4, ls=":")
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter(NullFormatter())
    momentum.set_visible(shows_momentum)
    momentum.set_ylim(0, 1.25)  # it follows the rate by default: not on top of it
    momentum.set_ylabel("dotted: momentum of the memory")
    rate.set_ylim(bottom=0)
    for axes, title in ((loss, "Training loss"), (miou, "Validation mIoU %"), (rate, "Learning rate")):
        axes.set_title(title)
        axes.set_xlabel("iteration")
    miou.ticklabel_format(axis="y", useOffset=False)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    figure.legend(handles=_memory_legend(variants), loc="outside upper right", ncols=2)
    return _to_png(figure)


@_styled
def confusion(values: NDArray[np.float64], change: NDArray[np.float64] | None, names: Sequence[str]) -> bytes:
    """Shares of the true class (K, K), row = truth, and the change of them if given."""
    figure = _canvas(12.5 if change is not None else 6.5, 6.2)
    axes = np.atleast_1d(figure.subplots(1, 1 if change is None else 2))
    _matrix(axes[0], 100 * values, names, SEQUENTIAL, (0.0, 100.0), signed=False)
    axes[0].set_title("Percent of the true class")
    axes[0].set_ylabel("true class")
    if change is not None:
        limit = max(5.0, float(np.nanmax(np.abs(100 * change))))
        _matrix(axes[1], 100 * change, names, DIVERGING, (-limit, limit), signed=True)
        axes[1].set_title("Change, points")
    for ax in axes:
        ax.set_xlabel("predicted class")
    return _to_png(figure)


@_styled
def cosines(states: Sequence[tuple[str, NDArray[np.float64]]], names: Sequence[str]) -> bytes:
    """Cosines (K, K) between the classes' vectors, one matrix per (title, state) of the memory."""
    figure = _canvas(6.25 * len(states), 5.8)
    lowest = min(float(np.nanmin(values, initial=1.0)) for _, values in states)
    limits = (10.0 * np.floor(10 * lowest), 100.0)  # one scale for both, as wide as the values need
    for axes, (title, values) in zip(figure.subplots(1, len(states), squeeze=False)[0], states, strict=True):
        _matrix(axes, 100 * values, names, SEQUENTIAL, limits, signed=False)
        axes.set_title(f"{title} (cosine × 100)")
    return _to_png(figure)


@dataclass(frozen=True)
class Panel:
    """One image at its original size, with the label maps (H, W) of truth and both sides."""

    id: str
    image: NDArray[np.uint8]  # RGB (H, W, 3)
    truth: NDArray[np.uint8]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]

    @property
    def only_one(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Valid pixels (H, W) that only the first side has right, and those that only the second has."""
        valid = self.truth != IGNORE_INDEX
        right = self.before == self.truth, self.after == self.truth
        return valid & right[0] & ~right[1], valid & right[1] & ~right[0]

    @property
    def shares(self) -> tuple[float, float]:
        """`only_one` as shares of the valid pixels."""
        valid = max(1, int((self.truth != IGNORE_INDEX).sum()))
        return self.only_one[0].sum() / valid, self.only_one[1].sum() / valid


_PANEL_WIDTH = 320  # pixels; larger pictures are shrunk for the page
_PANEL_CLASSES = 24  # named below the pictures


@_styled
def pictures(panels: Sequence[Panel], spec: DatasetSpec) -> bytes:
    """One row per panel: image, truth, both predictions, and where only one of them is right."""
    ratio = np.mean([panel.image.shape[0] / panel.image.shape[1] for panel in panels])
    figure = _canvas(13, len(panels) * (2.5 * ratio + 0.25) + 1.0)
    grid = figure.subplots(len(panels), 5, squeeze=False)
    for row, panel in zip(grid, panels, strict=True):
        maps = [colourise(labels, spec.palette) for labels in (panel.truth, panel.before, panel.after)]
        shown = [_shrunk(panel.image, cv2.INTER_AREA)]
        shown += [_shrunk(picture, cv2.INTER_NEAREST) for picture in (*maps, _difference(panel))]
        for axes, picture in zip(row, shown, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
        before, after = panel.shares
        place = {"transform": row[4].transAxes, "va": "top", "fontsize": 9, "fontweight": "bold"}
        row[4].text(0.0, -0.03, f"{percent(before, 1)} %", color=BASELINE, ha="left", **place)
        row[4].text(1.0, -0.03, f"{percent(after, 1)} %", color=MEMORY, ha="right", **place)
        row[0].text(0.0, -0.03, panel.id, transform=row[0].transAxes, va="top", fontsize=8)
    for axes, title in zip(grid[0], ("Image", "Truth", "Without", "With", "Only one is right"), strict=True):
        axes.set_title(title)
    _class_legend(figure, [labels for p in panels for labels in (p.truth, p.before, p.after)], spec)
    return _to_png(figure)


@_styled
def samples(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], spec: DatasetSpec) -> bytes:
    """Images (H, W, 3) above their label maps (H, W)."""
    ratio = np.mean([image.shape[0] / image.shape[1] for image, _ in pairs])
    figure = _canvas(13, 2 * (13 / len(pairs)) * ratio + 1.0)
    for column, (image, labels) in zip(figure.subplots(2, len(pairs), squeeze=False).T, pairs, strict=True):
        shown = _shrunk(image, cv2.INTER_AREA), _shrunk(colourise(labels, spec.palette), cv2.INTER_NEAREST)
        for axes, picture in zip(column, shown, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
    _class_legend(figure, [labels for _, labels in pairs], spec)
    return _to_png(figure)


def _class_legend(figure: Figure, maps: Sequence[NDArray[np.uint8]], spec: DatasetSpec) -> None:
    """The most frequent classes of label maps (H, W), below the pictures."""
    counted = np.bincount(np.concatenate([m.ravel() for m in maps]), minlength=256)[: len(spec.classes)]
    seen = [int(k) for k in np.argsort(-counted, kind="stable") if counted[k] > 0]
    legend = [(spec.classes[k], "#{:02x}{:02x}{:02x}".format(*spec.palette[k])) for k in sorted(seen[:_PANEL_CLASSES])]
    figure.legend(handles=_patches(legend), loc="outside lower center", ncols=min(len(legend), 8), fontsize=9)


def _difference(panel: Panel) -> NDArray[np.uint8]:
    """The image, faded to light grey, under the two colours."""
    grey = cv2.cvtColor(panel.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = np.repeat((215 + grey * 0.15)[..., None], 3, axis=2).astype(np.uint8)  # (H, W, 3)
    for mask, colour in zip(panel.only_one, (BASELINE, MEMORY), strict=True):
        faded[mask] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return faded


def _shrunk(picture: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if width <= _PANEL_WIDTH:
        return picture
    return cv2.resize(picture, (_PANEL_WIDTH, round(height * _PANEL_WIDTH / width)), interpolation=interpolation)
