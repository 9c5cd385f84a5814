"""Chapter 4: IoU of every class, so that rare ones do not drown in the mean."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.analysis import PRIMARY, Analysis
from pipeline.reporting.content import Block, Column, Figure, Section, Table, Text
from pipeline.reporting.results import Pair, Result
from pipeline.reporting.style import BASELINE, INK, MEMORY, MUTED, canvas, patches, rows_axis, styled, to_png
from pipeline.reporting.wording import PROTOCOLS, listing, percent, plain, plural, points, points_interval
from pipeline.results.statistics import Estimate

SHOWN = 40  # classes that fit a figure


def section(analysis: Analysis) -> Section:
    """A table and a figure per pair, a table per benchmark without partner."""
    study = analysis.study
    intro = (
        f"IoU in percent ({PROTOCOLS[PRIMARY]}, mean over seeds), most frequent class first. Share: of the valid pixels"
        " of the evaluated split. Gains in bold have an interval that excludes zero; by chance alone, about one class "
        "in twenty would."
    )
    blocks: list[Block] = [Text(intro)]
    for pair in study.pairs:
        blocks += _pair(analysis, pair)
    blocks += [_single(analysis, result) for result in study.unpaired]
    return Section("classes", "Classes", tuple(blocks))


def _pair(analysis: Analysis, pair: Pair) -> list[Block]:
    label, share, names = analysis.label(pair), pair.memory.class_share, pair.memory.spec.classes
    gains, order = analysis.class_gains(pair, PRIMARY), _order(pair.memory.class_share)
    before, after = (analysis.class_iou(side, PRIMARY) for side in (pair.baseline, pair.memory))
    columns = (
        *(Column("Class", number=False), Column("Share %"), Column("Without %"), Column("With %")),
        *(Column("Gain, points"), Column("95 % interval")),
    )
    rows = tuple(
        (
            plain(names[k]),
            _share(share[k]),
            percent(before[k]),
            percent(after[k]),
            f"**{points(gains[k].value)}**" if gains[k].resolved else points(gains[k].value),
            points_interval(gains[k].low, gains[k].high),
        )
        for k in order
    )
    drawn, rule = _shown(order, gains)
    best = max(drawn, key=lambda k: -np.inf if np.isnan(gains[k].value) else gains[k].value)
    worst = min(drawn, key=lambda k: np.inf if np.isnan(gains[k].value) else gains[k].value)
    figure = Figure(
        f"classes-{pair.memory.id}",
        partial(_draw, names, share, before, after, gains, drawn),
        f"Bars of IoU per class for {label} without and with memory, beside the gain. Largest gain: {names[best]} "
        f"{points(gains[best].value)} points; smallest: {names[worst]} {points(gains[worst].value)} points.",
        f"{label}: IoU per class without and with memory, and the gain with its 95 % interval. {rule}",
    )
    return [
        Text(f"### {label}\n\n{_rare(analysis, pair)}"),
        Table(f"IoU per class, {label}", columns, rows),
        figure,
    ]


def _rare(analysis: Analysis, pair: Pair) -> str:
    """Gain over the rarest third of the classes and over the others."""
    share = pair.memory.class_share
    present = [k for k in _order(share) if share[k] > 0]
    third = max(1, len(present) // 3)
    rare, rest = present[-third:], present[:-third]
    words = []
    for classes, name in ((rare, "the rarest third of the classes"), (rest, "the other classes")):
        if classes:
            g = analysis.gain(pair, PRIMARY, np.array(classes))
            words.append(f"{points(g.value)} points {points_interval(g.low, g.high)} over {name}")
    names = listing([plain(pair.memory.spec.classes[k]) for k in rare]) if third <= 12 else plural(third, "class")
    return f"Mean gain: {' and '.join(words)}. Rarest third: {names}."


def _single(analysis: Analysis, result: Result) -> Table:
    iou, share, names = analysis.class_iou(result, PRIMARY), result.class_share, result.spec.classes
    rows = tuple((plain(names[k]), _share(share[k]), percent(iou[k])) for k in _order(share))
    columns = (Column("Class", number=False), Column("Share %"), Column("IoU %"))
    return Table(f"IoU per class, {result.id}", columns, rows)


def _order(share: NDArray) -> list[int]:
    """Most frequent class first; equal shares in class order."""
    return [int(k) for k in np.argsort(-share, kind="stable")]


def _share(value: float) -> str:
    """Two digits that matter: 35.2, 0.84, 0.021."""
    number = 100 * value
    return "0" if number == 0 else f"{number:.1f}" if number >= 10 else f"{number:.2g}"


def _shown(order: list[int], gains: list[Estimate]) -> tuple[list[int], str]:
    if len(order) <= SHOWN:
        return order, "Most frequent class first."
    ranked = [k for k in sorted(order, key=lambda k: gains[k].value) if not np.isnan(gains[k].value)]
    chosen = {*ranked[: SHOWN // 2], *ranked[-SHOWN // 2 :]}
    rule = f"Of {len(order)} classes the {SHOWN // 2} with the largest and the {SHOWN // 2} with the smallest gain."
    return [k for k in order if k in chosen], rule


@styled
def _draw(
    names: tuple[str, ...],
    share: NDArray,
    before: NDArray,
    after: NDArray,
    gains: list[Estimate],
    drawn: list[int],
) -> bytes:
    figure = canvas(9.5, 1.2 + 0.36 * len(drawn))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    rows = np.arange(len(drawn))
    left.barh(rows - 0.19, 100 * before[drawn], height=0.36, color=BASELINE)
    left.barh(rows + 0.19, 100 * after[drawn], height=0.36, color=MEMORY)
    left.set_xlim(0, 100)
    left.set_xlabel("IoU %")
    rows_axis(left, [f"{names[k]}  ({_share(share[k])} %)" for k in drawn])
    figure.legend(
        handles=patches([("without memory", BASELINE), ("with memory", MEMORY)]), loc="outside upper left", ncols=2
    )
    right.axvline(0, color=INK, linewidth=1)
    for row, k in enumerate(drawn):
        gain = gains[k]
        colour = (MEMORY if gain.value > 0 else BASELINE) if gain.resolved else "#b7bdc8"
        right.barh(row, 100 * gain.value, height=0.55, color=colour)
        right.plot([100 * gain.low, 100 * gain.high], [row, row], color=INK if gain.resolved else MUTED, linewidth=1.2)
    right.set_xlabel("gain in points (grey: interval includes zero)")
    rows_axis(right, [f"{names[k]}  ({_share(share[k])} %)" for k in drawn])
    return to_png(figure)
