"""Chapter that asks each network whether it uses its memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.reporting.page import Section, Table, section
from pipeline.reporting.study import Study, Variant
from pipeline.reporting.words import NONE, image_interval, p_value, percent, plain, points, points_interval
from pipeline.results.record import PROBES
from pipeline.results.statistics import Estimate, gain, holm


@dataclass(frozen=True)
class Probed:
    """Of one variant: change of mIoU against the unchanged network in each probe, and mean entropies of attention.

    wrong: the change with the vectors of wrong classes in each single training, with intervals over images.
    """

    name: str
    changes: dict[str, Estimate]
    levels: dict[str, float]
    entropies: dict[str, float]
    wrong: list[Estimate]

    @property
    def users(self) -> int:
        """How many of the trained networks use their memory: wrong retrieval costs them more than images explain."""
        return sum(change.high < 0 for change in self.wrong)


def probes(study: Study) -> Section | None:
    """What the networks with memory score while one thing about the memory is changed."""
    found = [_probed(study, variant) for variant in study.ran if all("shuffled" in run.probes for run in variant.runs)]
    if not found:
        return None
    several = any(change.covers_seeds for each in found for change in each.changes.values())
    tables = [Table(f"Probes of {each.name}", _rows(each, several)) for each in found]
    return section("probes", "probes", found=found, tables=tables, several=several)


def _probed(study: Study, variant: Variant) -> Probed:
    scored = {probe: study.scores(variant.name, probe) for probe in PROBES if probe in variant.runs[0].probes}
    changes = {probe: gain(scored["final"], scores) for probe, scores in scored.items() if probe != "final"}
    entropies = {
        name: float(np.mean([run.attention_entropy[name] for run in variant.runs]))
        for name in variant.runs[0].attention_entropy
    }
    judged = dict(zip(changes, holm([*changes.values()]), strict=True))
    levels = {probe: s.mean().value for probe, s in scored.items()}
    wrong = [
        gain(*(study.scores(variant.name, probe, [run.seed]) for probe in ("final", "shuffled")))
        for run in variant.runs
    ]
    return Probed(variant.name, judged, levels, entropies, wrong)


def _rows(probed: Probed, several: bool) -> list[dict[str, str]]:
    """several: some variant of the chapter has several seeds."""
    rows = []
    for probe, level in probed.levels.items():
        change = probed.changes.get(probe)
        row = {"Probe": f"*{plain(probe)}*: {PROBES[probe]}", "mIoU %": percent(level)}
        row["Change, points"] = NONE if change is None else f"**{points(change.value)}**"
        if several:
            row["95 % interval"] = NONE if change is None else points_interval(change)
            row["p, adjusted"] = NONE if change is None else p_value(change.adjusted)
        else:
            row["95 % interval over images"] = NONE if change is None else image_interval(change)
        rows.append(row)
    return rows
