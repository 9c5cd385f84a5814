"""Chapter 2: mIoU of every benchmark, against the published number where there is one."""

from __future__ import annotations

from functools import partial

from matplotlib.lines import Line2D

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.comparison import compare, is_published, marks
from pipeline.reporting.content import Block, Column, Figure, Section, Table, Text
from pipeline.reporting.results import Result
from pipeline.reporting.style import BASELINE, INK, MEMORY, canvas, rows_axis, styled, to_png
from pipeline.reporting.wording import NONE, PROTOCOLS, percent, percent_interval, points, protocol


def section(analysis: Analysis) -> Section:
    """A table per protocol, a figure of all of them, and the list of single runs."""
    results = analysis.study.results
    figure = Figure(
        "scores",
        partial(_draw, analysis),
        _alt(analysis),
        "Large dots: mean over seeds, with the 95 % interval over seeds and images. Small dots: single seeds. "
        "Intervals of two benchmarks may overlap although their difference is resolved, because the images are "
        "shared: compare benchmarks in the [next chapter](#gain).",
    )
    tables = [_table(analysis, name) for name in PROTOCOLS]
    blocks: list[Block] = [Text(_protocols(results)), *tables, figure, _runs(analysis)]
    return Section("results", "Results", tuple(blocks))


def _protocols(results: tuple[Result, ...]) -> str:
    """How each number was taken, once per distinct protocol."""
    lines = []
    for name, title in PROTOCOLS.items():
        users: dict[str, list[str]] = {}
        for result in results:
            users.setdefault(protocol(getattr(result.benchmark.inference, name)), []).append(f"`{result.id}`")
        for words, ids in users.items():
            whose = "" if len(users) == 1 else f" ({', '.join(ids)})"
            lines.append(f"- **{title.capitalize()}**{whose}: {words}.")
    return "\n".join(lines)


def _table(analysis: Analysis, name: str) -> Table:
    results = analysis.study.results
    published = {result.id: _published(analysis, result, name) for result in results}
    has_published = any(value is not None for value in published.values())
    columns = [Column("Benchmark", number=False), Column("Memory", number=False), Column("mIoU %")]
    columns += [Column("SD over seeds"), Column("95 % interval")]
    columns += [Column("Published %"), Column("Difference")] if has_published else []
    columns += [Column("Seeds"), Column("Images"), Column("Split", number=False)]
    rows = []
    for result in results:
        score, number = analysis.score(result, name), published[result.id]
        cells = [f"`{result.id}`", "yes" if result.benchmark.memory else "no", f"**{percent(score.value)}**"]
        cells += [percent(score.deviation), percent_interval(score.low, score.high)]
        if has_published:
            cells += [NONE, NONE] if number is None else [f"{number:.2f}", points(score.value - number / 100)]
        cells += [str(len(result.runs)), str(len(result.ids)), _split(result)]
        rows.append(tuple(cells))
    return Table(f"mIoU, {PROTOCOLS[name]}", tuple(columns), tuple(rows))


def _runs(analysis: Analysis) -> Table:
    """Every run on its own line, so that no seed hides in a mean."""
    columns = (
        *(Column("Benchmark", number=False), Column("Seed")),
        *(Column("Single scale mIoU %"), Column("Multi-scale + flip mIoU %")),
        *(Column("Pixel accuracy %"), Column("Mean accuracy %"), Column("Checkpoint", number=False)),
    )
    rows = tuple(
        (
            f"`{result.id}`",
            str(run.seed),
            percent(run.metrics["single_scale"]["miou"]),
            percent(run.metrics["ms_flip"]["miou"]),
            percent(run.metrics["ms_flip"]["pixel_accuracy"]),
            percent(run.metrics["ms_flip"]["mean_accuracy"]),
            run.evaluation["checkpoint"],
        )
        for result in analysis.study.results
        for run in result.runs
    )
    return Table("Every run (accuracies with multi-scale + flip)", columns, rows)


def _published(analysis: Analysis, result: Result, name: str) -> float | None:
    """The published number, in percent, where it means the same as the one measured here."""
    if not is_published(analysis.study, result) or marks(analysis.study, result):
        return None
    return compare(analysis, result, name).published


def _split(result: Result) -> str:
    """The scored split, and what makes it another one than its name says."""
    remarks = ["local"] if result.server_scored else []
    remarks += ["subset"] if result.is_part else []
    return f"{result.spec.name} {result.split}" + (f" ({', '.join(remarks)})" if remarks else "")


def _alt(analysis: Analysis) -> str:
    parts = []
    for result in analysis.study.results:
        values = [f"{percent(analysis.score(result, name).value)} % {words}" for name, words in PROTOCOLS.items()]
        parts.append(f"{result.id} {' and '.join(values)}")
    return f"Dot plot of mIoU with intervals: {'; '.join(parts)}."


@styled
def _draw(analysis: Analysis) -> bytes:
    results = analysis.study.results
    figure = canvas(9, 1.3 + 0.42 * len(results))
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), PROTOCOLS.items(), strict=True):
        for row, result in enumerate(results):
            score = analysis.score(result, name)
            colour = MEMORY if result.benchmark.memory else BASELINE
            axes.plot([100 * score.low, 100 * score.high], [row, row], color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(100 * score.value, row, "o", color=colour, markersize=8)
            axes.plot(100 * score.per_seed, [row + 0.24] * len(score.per_seed), ".", color=colour, markersize=4)
            if (number := _published(analysis, result, name)) is not None:
                axes.plot(number, row, "|", color=INK, markersize=14, markeredgewidth=2)
        axes.set_title(title.capitalize())
        axes.set_xlabel("mIoU %")
        rows_axis(axes, [result.id for result in results])
    handles = [_dot(MEMORY, "with memory"), _dot(BASELINE, "without memory")]
    if any(_published(analysis, result, name) is not None for result in results for name in PROTOCOLS):
        handles.append(Line2D([], [], color=INK, marker="|", markersize=10, linestyle="none", label="published"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return to_png(figure)


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", linestyle="none", label=label)
