"""Chapters of a study's report that are tables alone: gains class by class, and the scores of all variants."""

from __future__ import annotations

from pipeline.reporting.content import Column, Section, Table, Text
from pipeline.reporting.study_analysis import StudyAnalysis
from pipeline.reporting.study_comparison import estimate_cells
from pipeline.reporting.wording import PROTOCOLS, listing, millions, percent, percent_interval, plain


def class_gains(analysis: StudyAnalysis) -> Section:
    """Gains of the pooled comparisons for each class, for the rare ones together and for the rest."""
    config = analysis.plan.config
    rare = [analysis.classes.index(name) for name in config.rare_classes]
    others = [k for k in range(len(analysis.classes)) if k not in rare]
    sets = [(f"{plain(name)}{' (rare)' if k in rare else ''}", [k]) for k, name in enumerate(analysis.classes)]
    if rare:
        sets += [("**rare classes, mean**", rare), ("**other classes, mean**", others)]
    tables = []
    for comparison in config.comparisons.values():
        if not comparison.pooled or not analysis.common_seeds(comparison):
            continue
        rows = []
        for name, members in sets:
            single_scale, primary = (analysis.pooled(comparison, protocol, members) for protocol in PROTOCOLS)
            rows.append((name, *estimate_cells(single_scale)[:2], *estimate_cells(primary)))
        tables.append(Table(comparison.question, _CLASS_COLUMNS, tuple(rows)))
    text = "Mean over the frameworks of each class's gain in IoU. With this many rows some exclude zero by chance."
    if not tables:
        text = "No pooled comparison is complete yet."
    return Section("classes", "Class by class", (Text(text), *tables))


_CLASS_COLUMNS = (
    *(Column("Class", number=False), Column("Single scale, points"), Column("95 % interval")),
    *(Column("ms+flip, points"), Column("95 % interval"), Column("Verdict", number=False)),
    *(Column("Seeds"), Column("Seeds ahead")),
)


def all_scores(analysis: StudyAnalysis) -> Section:
    """Every variant that was run: how well it fits the training data, and its mIoU on validation and test split."""
    rows = []
    for variant, config in analysis.plan.config.variants.items():
        seeds = analysis.seeds(variant)
        if not seeds:
            continue
        cells = []
        for protocol in PROTOCOLS:
            estimate = analysis.score(variant, protocol)
            cells += [percent(estimate.value), percent_interval(estimate.low, estimate.high)]
        rows.append(
            (
                *(f"`{variant}`", plain(config.title), listing([str(s) for s in seeds])),
                *(f"{analysis.training_loss(variant):.3f}", percent(analysis.validation(variant))),
                *(*cells, millions(analysis.parameters(variant))),
            )
        )
    columns = (
        *(Column("Variant", number=False), Column("Title", number=False), Column("Seeds")),
        *(Column("Training loss"), Column("Validation %")),
        *(Column("Single scale %"), Column("95 % interval"), Column("ms+flip %"), Column("95 % interval")),
        Column("Parameters"),
    )
    return Section("scores", "All scores", (Table("mIoU on validation and test split", columns, tuple(rows)),))
