"""Chapter 5: how the trainings went."""

from __future__ import annotations

from functools import partial

from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Block, Figure, Section, Text
from pipeline.reporting.results import Result
from pipeline.reporting.style import BASELINE, MEMORY, canvas, styled, to_png
from pipeline.reporting.wording import listing, percent


def section(analysis: Analysis) -> Section:
    """One figure per pair, one per benchmark without partner; imported checkpoints have no curves."""
    study = analysis.study
    if not study.trained:
        return Section("curves", "Learning curves", (Text("Nothing was trained: all weights are published ones."),))
    blocks: list[Block] = [
        Text(
            "Training loss (thin: as logged; thick: running mean), single-scale mIoU on the validation split, and the "
            "schedule. One line per seed. The losses of the two sides need not hold the same terms (coarse logits, "
            "consistency), so compare their shapes rather than their heights."
        )
    ]
    groups = [(pair.memory.id, analysis.label(pair), (pair.baseline, pair.memory)) for pair in study.pairs]
    groups += [(result.id, result.id, (result,)) for result in study.unpaired]
    for name, label, results in groups:
        if trained := tuple(result for result in results if not result.imported):
            blocks.append(_figure(name, label, trained))
    return Section("curves", "Learning curves", tuple(blocks))


def _figure(name: str, label: str, results: tuple[Result, ...]) -> Figure:
    ends = []
    for result in results:
        last = [percent(run.summary["final"]["miou"]) for run in result.runs]
        best = [f"{percent(run.summary['best']['miou'])} (epoch {run.summary['best']['epoch']})" for run in result.runs]
        side = "With memory" if result.benchmark.memory else "Without memory"
        ends.append(f"{side}: last {listing(last)} %, best {listing(best)} %.")
    return Figure(
        f"curves-{name}",
        partial(_draw, results),
        f"Learning curves of {label}: loss, validation mIoU and learning rate over iterations. {' '.join(ends)}",
        f"{label}. Validation mIoU per seed: {' '.join(ends)}",
    )


@styled
def _draw(results: tuple[Result, ...]) -> bytes:
    figure = canvas(10.5, 3.2)
    loss, miou, rate = figure.subplots(1, 3)
    momentum = rate.twinx()
    momentum.grid(visible=False)
    shows_momentum = False
    for result in results:
        colour = MEMORY if result.benchmark.memory else BASELINE
        for run in result.runs:
            history, validation = run.history, run.validation
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
    colours = {bool(result.benchmark.memory) for result in results}
    handles = [
        Line2D([], [], color=MEMORY if memory else BASELINE, label="with memory" if memory else "without memory")
        for memory in sorted(colours)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return to_png(figure)
