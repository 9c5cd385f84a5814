"""Chapters of a study's report that are one table each: rare classes, and the scores of all variants."""

from __future__ import annotations

from pipeline.reporting.content import Column, Section, Table, Text
from pipeline.reporting.wording import PROTOCOLS, listing, millions, percent, percent_interval, plain
from pipeline.studies.analysis import StudyAnalysis
from pipeline.studies.comparison import estimate_cells


def rare_classes(analysis: StudyAnalysis) -> Section:
    """Gains of the pooled comparisons for each rare class, for all of them and for the rest."""
    config = analysis.plan.config
    rows = []
    for comparison in config.comparisons.values():
        if not comparison.pooled:
            continue
        rare = [analysis.classes.index(name) for name in config.rare_classes]
        others = [k for k in range(len(analysis.classes)) if k not in rare]
        sets = [(f"{name}", [k]) for name, k in zip(config.rare_classes, rare, strict=True)]
        for name, members in (*sets, ("rare classes, mean", rare), ("other classes, mean", others)):
            for protocol, words in PROTOCOLS.items():
                estimate = analysis.pooled(comparison, protocol, members)
                if estimate is not None:
                    rows.append((name, comparison.question, words, *estimate_cells(estimate)))
    if not rows:
        return Section("rare", "Rare classes", (Text("No pooled comparison is complete yet."),))
    columns = (
        *(Column("Class", number=False), Column("Question", number=False), Column("Protocol", number=False)),
        *(Column("IoU points"), Column("95 % interval"), Column("Verdict", number=False)),
        *(Column("Seeds"), Column("Seeds ahead")),
    )
    text = "Mean over the frameworks of each class's gain in IoU. With this many rows some exclude zero by chance."
    return Section("rare", "Rare classes", (Text(text), Table("Gain per rare class", columns, tuple(rows))))


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
        parameters = next(s.record["parameters"]["total"] for s in analysis.stored if s.variant == variant)
        rows.append(
            (
                *(f"`{variant}`", plain(config.title), listing([str(s) for s in seeds])),
                *(f"{analysis.training_loss(variant):.3f}", percent(analysis.validation(variant))),
                *(*cells, millions(parameters)),
            )
        )
    columns = (
        *(Column("Variant", number=False), Column("Title", number=False), Column("Seeds")),
        *(Column("Training loss"), Column("Validation %")),
        *(Column("Single scale %"), Column("95 % interval"), Column("ms+flip %"), Column("95 % interval")),
        Column("Parameters"),
    )
    return Section("scores", "All scores", (Table("mIoU on validation and test split", columns, tuple(rows)),))
