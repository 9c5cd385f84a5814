"""Chapter 1: what came out, in words no stronger than the numbers."""

from __future__ import annotations

import math

from pipeline.reporting.analysis import PRIMARY, Analysis
from pipeline.reporting.content import Block, Fact, Facts, Section, Text
from pipeline.reporting.results import Pair
from pipeline.reporting.sections import published
from pipeline.reporting.wording import PROTOCOLS, listing, percent, percent_interval, plural, points, points_interval
from pipeline.results.statistics import Estimate


def section(analysis: Analysis) -> Section:
    """One paragraph and one large number per pair."""
    study = analysis.study
    blocks: list[Block] = []
    if study.pairs:
        gains = [_sentence(analysis, pair) for pair in study.pairs]
        sentences = [_setting(analysis), *gains, _hedge(analysis), published.summary(study)]
        blocks.append(Text(" ".join(sentences)))
        blocks.append(Facts(tuple(_fact(analysis, pair) for pair in study.pairs)))
    else:
        scores = [(result.id, analysis.score(result, PRIMARY)) for result in study.results]
        listed = "; ".join(f"`{name}` {percent(s.value)} % {percent_interval(s.low, s.high)}" for name, s in scores)
        blocks.append(
            Text(
                f"No chosen benchmark has its baseline beside it, so there is no gain to report. "
                f"mIoU ({PROTOCOLS[PRIMARY]}): {listed}. {_hedge(analysis)} {published.summary(study)}"
            )
        )
    return Section("headline", "What came out", tuple(blocks))


def verdict(estimate: Estimate) -> str:
    """gain, loss or not resolved: what the interval allows one to say."""
    return ("gain" if estimate.value > 0 else "loss") if estimate.resolved else "not resolved"


def _setting(analysis: Analysis) -> str:
    places = {
        f"the {len(p.memory.ids)} `{p.memory.split}` images of `{p.memory.spec.name}`" for p in analysis.study.pairs
    }
    return f"Numbers are mIoU with {PROTOCOLS[PRIMARY]} on {listing(sorted(places))}."


def _sentence(analysis: Analysis, pair: Pair) -> str:
    gain = analysis.gain(pair, PRIMARY)
    name, interval = analysis.label(pair), points_interval(gain.low, gain.high)
    before, after = (percent(analysis.score(side, PRIMARY).value) for side in (pair.baseline, pair.memory))
    if gain.resolved:
        verb = "gains" if gain.value > 0 else "loses"
        size = points(abs(gain.value)).lstrip("+")
        return (
            f"The memory **{verb} {size} points on {name}** ({before} → {after} %, 95 % interval {interval}, "
            "which excludes zero)."
        )
    if math.isnan(gain.low):
        return (
            f"On **{name}** the change is **{points(gain.value)} points** ({before} → {after} %), of a single image: "
            "there is no interval, and nothing is resolved."
        )
    return (
        f"On **{name}** the change of **{points(gain.value)} points** ({before} → {after} %) has the interval "
        f"{interval}, which includes zero: **not resolved** with this many seeds and images."
    )


def _hedge(analysis: Analysis) -> str:
    seeds = len(analysis.study.project.seeds)
    if not analysis.study.trained:
        return (
            "All weights are **published checkpoints**, one training each, so the intervals cover the choice of images "
            "only ([how to read this report](#reading))."
        )
    if seeds == 1:
        return (
            "There is **one seed**, so the intervals cover the choice of images only; "
            "how much another training would differ is unknown ([how to read this report](#reading))."
        )
    return f"Intervals cover {plural(seeds, 'seed')} and the images ([how to read this report](#reading))."


def _fact(analysis: Analysis, pair: Pair) -> Fact:
    gain = analysis.gain(pair, PRIMARY)
    tone = {"gain": "gain", "loss": "loss"}.get(verdict(gain), "neutral")
    judged = {"gain": "excludes zero", "loss": "excludes zero"}.get(verdict(gain), "includes zero: not resolved")
    return Fact(
        f"{analysis.label(pair)}: gain of the memory",
        f"{points(gain.value)}",
        f"mIoU points {points_interval(gain.low, gain.high)}, {judged}",
        tone,
    )
