"""The first chapter: did this run reproduce?"""

from __future__ import annotations

from pipeline.reporting.chapters.compared import SHORT
from pipeline.reporting.page import Section, Table, section
from pipeline.reporting.study import Study
from pipeline.reporting.words import NONE, plain, points
from pipeline.results.verdict import LEVEL, Verdict, published_verdicts, verdicts, worst


def verdict(study: Study) -> Section | None:
    """Every score and gain beside its reference; a study in Git, which is a reference itself, has none."""
    if study.is_recorded:
        return None
    found = judge(study)
    rows = [row(each) for each in found]
    if not any(each.reason for each in found):
        rows = [{name: cell for name, cell in each.items() if name != "Why"} for each in rows]
    return section(
        "verdict",
        "verdict",
        word=worst(found),
        level=round(100 * LEVEL),
        different=[each for each in found if each.word == "different"],
        judged=[each for each in found if each.word in ("identical", "reproduced", "different")],
        others=sorted({each.reason for each in found if each.word == "not comparable"}),
        table=Table("Yours beside the reference, mIoU in percent and gains in points", rows),
    )


def judge(study: Study) -> list[Verdict]:
    """One verdict for each benchmark and pair under each protocol; a published row has only those of its benchmark."""
    files = {file.id: file for file in study.published}
    names = [variant.name for variant in study.ran if variant.name not in files]
    pairs = [pair for pair in study.pairs if set(pair) <= set(names)]
    runs = {name: (study.variants[name].benchmark, study.variants[name].runs) for name in names}
    found = verdicts(runs, pairs, study.references)
    for variant in study.ran:
        if file := files.get(variant.name):
            found += published_verdicts(file, variant.benchmark, variant.runs, variant.marks(file))
    return found


def row(verdict: Verdict) -> dict[str, str]:
    """The cells of one verdict."""

    def number(value: float | None) -> str:
        if value is None or value != value:
            return NONE
        return points(value / 100) if verdict.is_gain else f"{value:.2f}"

    return {
        "What": " → ".join(f"`{name}`" for name in verdict.names),
        "Protocol": SHORT[verdict.protocol].lower(),
        "Verdict": f"**{verdict.word}**",
        "Yours": number(verdict.yours),
        "Seeds": str(verdict.seeds),
        "Reference": number(verdict.reference),
        "SD": NONE if verdict.deviation is None else f"{verdict.deviation:.2f}",
        "Its seeds": str(verdict.reference_seeds) if verdict.reference_seeds else NONE,
        "Expected": "[{}, {}]".format(*map(number, verdict.interval)) if verdict.interval else NONE,
        "Why": plain(verdict.reason) or NONE,
    }
