"""Chapter of a study's report: one question, answered by paired differences."""

from __future__ import annotations

from functools import partial

from pipeline.reporting.analysis import PRIMARY
from pipeline.reporting.content import Block, Column, Figure, Note, Section, Table, Text
from pipeline.reporting.forest import forest
from pipeline.reporting.sections.headline import verdict
from pipeline.reporting.study_analysis import Pair, StudyAnalysis
from pipeline.reporting.wording import NONE, PROTOCOLS, listing, percent, plain, points, points_interval
from pipeline.results.statistics import Estimate

_AXIS = "← worse      difference in mIoU points      better →"


def section(analysis: StudyAnalysis, key: str) -> Section:
    """Table and forest plot of the comparison `key`, and what of it was not run yet."""
    comparison = analysis.plan.config.comparisons[key]
    rows, drawn, absent, notes = [], [], [], []
    for pair in comparison.pairs:
        label = pair_label(analysis, pair)
        for protocol, words in PROTOCOLS.items():
            estimate = analysis.gain(pair, protocol)
            if estimate is None:
                continue
            seeds = analysis.seeds(*pair)
            sides = (analysis.score(variant, protocol, seeds).value for variant in pair)
            rows.append((label, words, *map(percent, sides), *estimate_cells(estimate)))
            if protocol == PRIMARY:
                drawn.append((label, estimate))
        if not analysis.seeds(*pair):
            absent.append(label)
    if comparison.pooled:
        for protocol, words in PROTOCOLS.items():
            pooled = analysis.pooled(comparison, protocol)
            if pooled is not None:
                rows.append(("**Mean of the pairs**", words, NONE, NONE, *estimate_cells(pooled)))
                drawn += [("mean of the pairs", pooled)] if protocol == PRIMARY else []
    shared = analysis.common_seeds(comparison)
    if comparison.pooled and shared and any(analysis.seeds(*pair) != shared for pair in comparison.pairs):
        words = listing([str(seed) for seed in shared])
        notes.append(Note(f"The mean of the pairs is over the seeds that all of them share: {words}."))
    blocks: list[Block] = [Text(comparison.note)] if comparison.note else []
    if rows:
        columns = (
            *(Column("Difference", number=False), Column("Protocol", number=False), Column("Without %")),
            *(Column("With %"), Column("Points"), Column("95 % interval"), Column("Verdict", number=False)),
            *(Column("Seeds"), Column("Seeds ahead")),
        )
        alt = "; ".join(f"{label}: {points(e.value)} {points_interval(e.low, e.high)}" for label, e in drawn)
        blocks += [
            Table(comparison.question, columns, tuple(rows)),
            Figure(
                key,
                partial(forest, drawn, _AXIS),
                f"Forest plot of differences in mIoU. {alt}.",
                f"Differences in mIoU points, {PROTOCOLS[PRIMARY]}, with 95 % interval; filled when it excludes zero. "
                "Small dots: single seeds.",
            ),
        ]
    if absent:
        notes.append(Note(f"Not run yet: {listing(absent)}.", "warning"))
    return Section(key, comparison.question, (*blocks, *notes))


def pair_label(analysis: StudyAnalysis, pair: Pair) -> str:
    """`DeepLabV3 → DeepLabV3 + memory`, in the titles of the study's file."""
    without, with_ = (plain(analysis.plan.config.variants[variant].title) for variant in pair)
    return with_ if without == with_ else f"{without} → {with_}"


def estimate_cells(estimate: Estimate) -> tuple[str, ...]:
    """Difference, interval, verdict, number of seeds, and of those that are ahead."""
    return (
        f"**{points(estimate.value)}**",
        points_interval(estimate.low, estimate.high),
        verdict(estimate),
        str(len(estimate.per_seed)),
        str(int((estimate.per_seed > 0).sum())),
    )
