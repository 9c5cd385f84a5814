"""Chapter 3: what the memory adds over the same framework without it."""

from __future__ import annotations

from functools import partial

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Block, Column, Figure, Section, Table, Text
from pipeline.reporting.forest import forest
from pipeline.reporting.sections.headline import verdict
from pipeline.reporting.wording import (
    PROTOCOLS,
    listing,
    percent,
    points,
    points_interval,
    probability,
)
from pipeline.results.statistics import SAMPLES

COLUMNS = (
    *(Column("Framework", number=False), Column("Protocol", number=False)),
    *(Column("Without %"), Column("With %"), Column("Gain, points"), Column("95 % interval")),
    *(Column("Probability of gain"), Column("Verdict", number=False), Column("Seeds ahead")),
)

_AXIS = "← worse with memory      gain in mIoU points      better with memory →"


def section(analysis: Analysis) -> Section:
    """Table and forest plot of the paired differences."""
    study = analysis.study
    if not study.pairs:
        text = (
            "No chosen benchmark has its `baseline` among the chosen ones. Add both to `benchmarks` in `params.yaml` "
            "to measure the gain."
        )
        return Section("gain", "Gain of the memory", (Text(text),))
    seeds = [str(seed) for seed in study.project.seeds]
    intro = (
        f"Both sides share images and {'seed' if len(seeds) == 1 else 'seeds'} {listing(seeds)}: each of {SAMPLES} "
        "resamples draws the same ones for both, so that what they have in common cancels. The probability of gain is "
        "the share of resamples in which the memory is ahead."
    )
    if any(side.imported for pair in study.pairs for side in (pair.baseline, pair.memory)):
        intro += " A published checkpoint is one training of unknown seed: its intervals cover the images only."
    rows = [(analysis.label(pair), name, analysis.gain(pair, name)) for pair in study.pairs for name in PROTOCOLS]
    alt = "; ".join(
        f"{label}, {PROTOCOLS[name]}: {points(g.value)} points {points_interval(g.low, g.high)}"
        for label, name, g in rows
    )
    blocks: list[Block] = [
        Text(intro),
        Table("Gain of the memory in mIoU, paired over seeds and images", COLUMNS, _rows(analysis)),
        Figure(
            "gain",
            partial(forest, [(f"{label}\n{PROTOCOLS[name]}", estimate) for label, name, estimate in rows], _AXIS),
            f"Forest plot of the gain in mIoU. {alt}.",
            "Gain in mIoU points with 95 % interval; filled when the interval excludes zero, hollow when it does not. "
            "Small dots: single seeds.",
        ),
    ]
    if study.unpaired:
        ids = listing([f"`{result.id}`" for result in study.unpaired])
        blocks.append(Text(f"Without a partner, hence not in this chapter: {ids}."))
    return Section("gain", "Gain of the memory", tuple(blocks))


def _rows(analysis: Analysis) -> tuple[tuple[str, ...], ...]:
    rows = []
    for pair in analysis.study.pairs:
        for name, words in PROTOCOLS.items():
            gain = analysis.gain(pair, name)
            rows.append(
                (
                    analysis.label(pair),
                    words,
                    *(percent(analysis.score(side, name).value) for side in (pair.baseline, pair.memory)),
                    f"**{points(gain.value)}**",
                    points_interval(gain.low, gain.high),
                    probability(gain.positive, SAMPLES),
                    verdict(gain),
                    f"{int((gain.per_seed > 0).sum())} of {len(gain.per_seed)}",
                )
            )
    return tuple(rows)
