"""The verdicts of a study: every score and gain beside its reference record, every published row beside its number."""

from __future__ import annotations

from pipeline.config import Benchmark
from pipeline.reporting.study import Study, Variant
from pipeline.results import compare
from pipeline.results.verdict import Verdict, published_verdicts, verdicts


def judge(study: Study) -> list[Verdict]:
    """One verdict for each benchmark and pair under each protocol; a published row has only those of its benchmark."""
    files = {file.id: file for file in study.published}
    rows = [variant for variant in study.ran if variant.name in files]
    names = [variant.name for variant in study.ran if variant.name not in files]
    pairs = [pair for pair in study.pairs if set(pair) <= set(names)]
    runs = {name: (study.variants[name].benchmark, study.variants[name].runs) for name in names}
    found = verdicts(runs, pairs, study.references)
    for variant in rows:
        file = files[variant.name]
        found += published_verdicts(file, variant.benchmark, variant.runs, marks(variant, file))
    return found


def marks(variant: Variant, file: Benchmark) -> list[str]:
    """Why the result of `variant` is not the published row of `file`."""
    return compare.marks(file, variant.benchmark, variant.is_part, variant.server_scored)
