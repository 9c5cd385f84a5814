"""Chapter 9: what it takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Block, Column, Note, Section, Table, Text
from pipeline.reporting.results import Pair, Result, Run
from pipeline.reporting.wording import (
    duration,
    listing,
    machine_in_words,
    memory_size,
    millions,
    points,
    short_time,
)


def section(analysis: Analysis) -> Section:
    """Mean over seeds of time and memory; parameters; what the memory adds."""
    results = analysis.study.results
    columns = (
        *(Column("Benchmark", number=False), Column("Training"), Column("Per iteration"), Column("Peak memory")),
        *(Column("Parameters"), Column("of the encoder"), Column("of the head"), Column("Evaluation per image")),
        Column("Device", number=False),
    )
    blocks: list[Block] = [
        Text(
            "Mean over seeds. Training includes validation (of an imported checkpoint: its conversion alone); "
            "evaluation per image covers both protocols together. Peak "
            "memory is what torch allocated on a GPU, or what the process held on a CPU. The memory's vectors are a "
            "buffer and not among the parameters."
        )
    ]
    if len({hardware(run) for result in results for run in result.runs}) > 1:
        blocks.append(Note("Runs used different hardware: do not compare their times.", kind="warning"))
    blocks.append(Table("Cost", columns, tuple(_row(result) for result in results)))
    if analysis.study.pairs:
        lines = [f"- **{analysis.label(pair)}**: {_overhead(pair)}." for pair in analysis.study.pairs]
        blocks.append(Text("What the memory adds to its baseline:\n\n" + "\n".join(lines)))
    return Section("cost", "Cost", tuple(blocks))


def hardware(run: Run) -> str:
    """The machine that trained a run, in words."""
    return machine_in_words(run.cost["hardware"])


def _row(result: Result) -> tuple[str, ...]:
    parameters = result.runs[0].summary["parameters"]
    return (
        f"`{result.id}`",
        f"import, {duration(_seconds(result))}" if result.imported else duration(_seconds(result)),
        short_time(_per_iteration(result)),
        memory_size(max(run.cost["peak_memory_bytes"] or 0 for run in result.runs)),
        *(millions(parameters[part]) for part in ("total", "encoder", "head")),
        short_time(_evaluation(result)),
        listing(sorted({run.cost["device"] for run in result.runs})),
    )


def _overhead(pair: Pair) -> str:
    sizes = [side.runs[0].summary["parameters"]["total"] for side in (pair.baseline, pair.memory)]
    before, after = (_per_iteration(side) for side in (pair.baseline, pair.memory))
    iteration = "" if before is None or after is None else f"{_percent(before, after)} time per training iteration, "
    tests = [_evaluation(side) for side in (pair.baseline, pair.memory)]
    return (
        f"{_percent(*sizes)} parameters ({millions(sizes[1] - sizes[0])}), {iteration}{_percent(*tests)} time per "
        "evaluated image"
    )


def _percent(before: float, after: float) -> str:
    return f"{points(after / before - 1, 0)} %"


def _seconds(result: Result) -> float:
    return _mean(result, lambda run: run.cost["seconds"])


def _per_iteration(result: Result) -> float | None:
    """None for an imported checkpoint, which was not trained here."""
    return None if result.imported else _mean(result, lambda run: run.cost["seconds_per_iteration"])


def _evaluation(result: Result) -> float:
    return _mean(result, lambda run: run.evaluation_cost["seconds_per_image"])


def _mean(result: Result, value: Callable[[Run], float]) -> float:
    return float(np.mean([value(run) for run in result.runs]))
