"""Chapters about differences: the headline, one chapter per question, the gains class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.config.schema import PRIMARY, PROTOCOL_NAMES, PROTOCOLS
from pipeline.reporting import figures
from pipeline.reporting.page import Fact, Facts, Figure, Section, Table, section
from pipeline.reporting.study import Comparison, Pair, Study, frequent_first
from pipeline.reporting.words import (
    NONE,
    class_share,
    image_interval,
    p_value,
    percent,
    plain,
    points,
    points_interval,
    verdict,
)
from pipeline.results.statistics import Estimate, holm

SHORT = {"single_scale": "Single scale", "ms_flip": "ms+flip"}  # in heads of columns
_MEAN = "Mean of the pairs"
SHOWN_CLASSES = 40  # that fit a figure


@dataclass(frozen=True)
class Finding:
    """One number of the headline: of a pair, or of all pairs of a comparison; before and after: mIoU of a pair."""

    label: str
    estimate: Estimate  # of the difference
    pooled: bool
    pairs: int
    ahead: int  # pairs
    before: float
    after: float


@dataclass(frozen=True)
class Line:
    """One line of a question's table: a pair, or the mean of all, under one protocol."""

    label: str
    protocol: str
    sides: tuple[float, float] | None  # mIoU without and with; None: of the mean
    estimate: Estimate  # of the difference


def headline(study: Study) -> Section:
    """What came out: of pooled comparisons their means, else each pair; without comparisons the scores."""
    pooled = [comparison for comparison in study.comparisons if comparison.pooled]
    if pooled:
        found = [_finding(study, comparison.question, comparison.pairs, pooled=True) for comparison in pooled]
    else:
        found = [_finding(study, study.label(pair), (pair,), pooled=False) for pair in study.pairs]
    findings = [finding for finding in found if finding is not None]
    measured = [study.variants[name] for pair in study.pairs for name in pair] or study.ran
    groups: dict[str, list[str]] = {}
    for variant in study.ran:
        groups.setdefault(variant.group, []).append(variant.name)
    return section(
        "headline",
        "headline",
        study=study,
        findings=findings,
        scores={variant.name: study.score(variant.name, PRIMARY) for variant in study.ran},
        validation={name: validation(study, name) for names in groups.values() for name in names},
        groups=groups,
        places=sorted({f"the {len(v.ids)} `{v.split}` images of `{v.spec.name}`" for v in measured}),
        protocol=PROTOCOL_NAMES[PRIMARY],
        seeds=sorted({len(finding.estimate.per_seed) for finding in findings}) or seed_counts(study),
        rows_run=rows_run(study),
        judged=_judged(study),
        facts=Facts([_fact(finding) for finding in findings]) if findings else "",
    )


def comparisons(study: Study) -> list[Section]:
    """Table and forest plot of every question, and which of its pairs were not run."""
    return [_comparison(study, comparison) for comparison in study.comparisons]


def classes(study: Study) -> Section | None:
    """Scores and gains of every class: means of pooled comparisons, else pair by pair."""
    sets: list[tuple[str, str, Sequence[Pair]]] = []  # figure, caption, pairs
    for c in study.comparisons:
        if c.pooled and study.shared_seeds(c.pairs):
            sets.append((c.key, c.question, c.pairs))
        elif not study.is_recorded:
            sets += [(pair[1], f"IoU per class, {study.label(pair)}", [pair]) for pair in c.pairs if study.seeds(pair)]
    blocks = [block for name, caption, pairs in sets for block in _classes(study, name, caption, pairs)]
    single = [] if study.is_recorded else study.unpaired
    blocks += [
        Table(
            f"IoU per class, {variant.name}",
            [
                {
                    "Class": plain(variant.spec.classes[k]),
                    "Share %": class_share(variant.class_share[k]),
                    "IoU %": percent(_level(study, [variant.name], study.seeds([variant.name]), [k])),
                }
                for k in frequent_first(variant)
            ],
        )
        for variant in single
    ]
    if not blocks:
        return None
    averaged = any(len(pairs) > 1 for _, _, pairs in sets)
    return section(
        "classes",
        "classes",
        blocks=blocks,
        compared=bool(sets),
        averaged=averaged,
        several=any(len(study.shared_seeds(pairs)) > 1 for _, _, pairs in sets),
        named=study.named_rare,
        protocol=PROTOCOL_NAMES[PRIMARY],
    )


def validation(study: Study, name: str) -> float:
    """mIoU of the last weights on the validation split, single scale, mean over the seeds; NaN: imported."""
    values = [run.validation_miou for run in study.variants[name].runs]
    return float(np.mean([np.nan if value is None else value for value in values]))


def seed_counts(study: Study) -> list[int]:
    """The numbers of seeds behind the differences, or behind the scores if nothing is compared."""
    names: list[Sequence[str]] = [*study.pairs] or [[variant.name] for variant in study.ran]
    return sorted({len(study.seeds(each)) for each in names})


def rows_run(study: Study) -> int:
    """How many of the published rows were run."""
    return sum(row.id in study.variants for row in study.rows)


def _judged(study: Study) -> int:
    """How many differences share an adjustment of their p-values."""
    return sum(protocol == PRIMARY and each.covers_seeds for (_, protocol), each in study.differences.items())


def _finding(study: Study, label: str, pairs: tuple[Pair, ...], pooled: bool) -> Finding | None:
    estimate, seeds = study.differences.get((pairs, PRIMARY)), study.shared_seeds(pairs)
    if estimate is None:
        return None
    singles = [study.gain([pair], PRIMARY, seeds=seeds) for pair in pairs]
    ahead = sum(single is not None and single.value > 0 for single in singles)
    before, after = (_level(study, [pair[side] for pair in pairs], seeds) for side in (0, 1))
    return Finding(label, estimate, pooled, len(pairs), ahead, before, after)


def _fact(finding: Finding) -> Fact:
    estimate = finding.estimate
    interval = f" {points_interval(estimate)}" if estimate.covers_seeds else ""
    tone = verdict(estimate) if estimate.resolved else "neutral"
    return Fact(finding.label, points(estimate.value), f"mIoU points{interval}, {verdict(estimate)}", tone)


def _comparison(study: Study, comparison: Comparison) -> Section:
    lines = _lines(study, comparison)
    single = any(not line.estimate.covers_seeds for line in lines)
    several = any(line.estimate.covers_seeds for line in lines)
    shared = study.shared_seeds(comparison.pairs)
    drawn = [(line.label, line.estimate) for line in lines if line.protocol == PRIMARY]
    return section(
        comparison.key,
        "comparison",
        comparison=comparison,
        table=Table(comparison.question, [_row(line, several, single) for line in lines]),
        several=several,
        judged=_judged(study),
        figure=_forest(comparison.key, drawn, several) if drawn else "",
        partial_seeds=shared if comparison.pooled and any(study.seeds(p) != shared for p in comparison.pairs) else (),
        absent=[study.label(pair) for pair in comparison.pairs if not study.seeds(pair)],
        alone=[] if study.is_recorded else [variant.name for variant in study.unpaired],
        imported=any(study.variants[name].imported for pair in comparison.pairs for name in pair),
    )


def _lines(study: Study, comparison: Comparison) -> list[Line]:
    found = []
    for pair in comparison.pairs:
        seeds = study.seeds(pair)
        for protocol in PROTOCOLS if seeds else ():
            before, after = (study.score(name, protocol, seeds).value for name in pair)
            estimate = study.differences[(pair,), protocol]
            found.append(Line(study.label(pair), protocol, (before, after), estimate))
    for protocol in PROTOCOLS if comparison.pooled else ():
        if (mean := study.differences.get((comparison.pairs, protocol))) is not None:
            found.append(Line(_MEAN, protocol, None, mean))
    return found


def _row(line: Line, several: bool, single: bool) -> dict[str, str]:
    """several, single: some line of the table has several seeds, or a single one."""
    before, after = (NONE, NONE) if line.sides is None else map(percent, line.sides)
    row = {
        "Difference": f"**{line.label}**" if line.label == _MEAN else plain(line.label),
        "Protocol": PROTOCOL_NAMES[line.protocol],
        "Without %": before,
        "With %": after,
        "Points": f"**{points(line.estimate.value)}**",
    }
    row |= {"95 % interval": points_interval(line.estimate)} if several else {}
    row |= {"95 % interval over images alone": image_interval(line.estimate)} if single else {}
    return row | _judgement(line.estimate, several)


def _forest(key: str, drawn: Sequence[tuple[str, Estimate]], several: bool) -> Figure:
    ends = [f"{points(e.value)} {points_interval(e)}" if e.covers_seeds else points(e.value) for _, e in drawn]
    alt = "; ".join(f"{label}: {end}" for (label, _), end in zip(drawn, ends, strict=True))
    interval = (
        ", with 95 % interval over trainings and images; filled when the adjusted p-value is below 0.05" * several
    )
    return Figure(
        key,
        partial(figures.forest, drawn),
        f"Forest plot of differences in mIoU. {alt}.",
        f"Differences in mIoU points, {PROTOCOL_NAMES[PRIMARY]}{interval}. Small dots: single seeds.",
    )


def _judgement(estimate: Estimate, several: bool) -> dict[str, str]:
    """several: some row of the table has several seeds, and so p-values."""
    values = {"p": p_value(estimate.p), "p, adjusted": p_value(estimate.adjusted)} if several else {}
    ahead = int((estimate.per_seed > 0).sum())
    return values | {"Verdict": verdict(estimate), "Seeds": str(len(estimate.per_seed)), "Seeds ahead": str(ahead)}


def _classes(study: Study, name: str, caption: str, pairs: Sequence[Pair]) -> list[Table | Figure]:
    """Table and bars of every class, and the means over rare and other classes; without and with: ms+flip."""
    variant, seeds = study.variants[pairs[0][1]], study.shared_seeds(pairs)
    order, rare, share, names = frequent_first(variant), study.rare(variant), variant.class_share, variant.spec.classes
    others = [k for k in range(len(names)) if k not in rare]
    sets = [(f"{plain(names[k])}{' (rare)' if k in rare else ''}", [k]) for k in order]
    means = {"**rare classes, mean**": rare, "**other classes, mean**": others} if rare and others else {}
    everything = [*sets, *means.items()]
    primary = holm([study.gain(pairs, PRIMARY, members) for _, members in everything])
    several = len(seeds) > 1
    rows, bars = [], {}
    for (label, members), judged in zip(everything, primary, strict=True):
        before, after = (_level(study, [pair[side] for pair in pairs], seeds, members) for side in (0, 1))
        row = {"Class": label, "Share %": class_share(share[members].sum())}
        row |= {"Without %": percent(before), "With %": percent(after)}
        for protocol in PROTOCOLS:
            estimate = judged if protocol == PRIMARY else study.gain(pairs, protocol, members)
            row[f"{SHORT[protocol]}, points"] = f"**{points(estimate.value)}**"
            row |= {f"{SHORT[protocol]}: 95 % interval": points_interval(estimate)} if several else {}
        rows.append(row | _judgement(judged, several))
        if label not in means:
            (k,) = members
            bars[k] = figures.ClassBar(names[k], share[k], before, after, judged)
    ranked = sorted((k for k in order if not np.isnan(bars[k].gain.value)), key=lambda k: bars[k].gain.value)
    rule = "Most frequent class first."
    shown = order
    if len(order) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        shown = [k for k in order if k in {*ranked[:half], *ranked[-half:]}]
        rule = f"Of {len(order)} classes the {half} with the largest and the {half} with the smallest gain."
    ends = [f"{names[k]} {points(bars[k].gain.value)} points" for k in (ranked[-1], ranked[0])]
    figure = Figure(
        f"classes-{name}",
        partial(figures.class_bars, [bars[k] for k in shown]),
        f"Bars of IoU per class of both sides, beside them the gain. Largest gain: {ends[0]}; smallest: {ends[1]}.",
        f"{caption.rstrip('?')}: both sides, and the difference"
        f"{' with its 95 % interval' * several} ({PROTOCOL_NAMES[PRIMARY]}). {rule}",
    )
    return [Table(caption, rows), figure]


def _level(study: Study, names: Sequence[str], seeds: Sequence[int], classes: Sequence[int] | None = None) -> float:
    """Mean IoU (over `classes` if given) of variants and seeds."""
    chosen = None if classes is None else np.asarray(classes)
    return float(np.mean([study.scores(name, PRIMARY, seeds).mean(chosen).value for name in names]))
