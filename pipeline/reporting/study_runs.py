"""Chapter of a study's report: what exactly was run, by which command, where, and what was not."""

from __future__ import annotations

from collections import Counter

from pipeline.reporting.content import Block, Code, Column, Note, Section, Table, Text
from pipeline.reporting.study_analysis import StudyAnalysis
from pipeline.reporting.wording import duration, listing, machine_in_words, plural
from pipeline.results.stored import Stored


def section(analysis: StudyAnalysis) -> Section:
    """One line per combination of commit, hardware and precision; the commands; missing and foreign results."""
    groups = Counter(_place(run) for run in analysis.stored)
    seconds = sum(run.record["training_seconds"] + run.record["evaluation_seconds"] for run in analysis.stored)
    rows = tuple((*place, str(number)) for place, number in sorted(groups.items()))
    columns = (
        *(Column("Commit", number=False), Column("Hardware", number=False), Column("torch", number=False)),
        *(Column("Precision", number=False), Column("Trainings")),
    )
    commands = sorted({run.record["command"] for run in analysis.stored})
    text = (
        f"{plural(len(analysis.stored), 'training')} of {len(analysis.plan.runs)} planned ones, "
        f"{duration(seconds)} of training and evaluation in all. Configuration hash, commit, hardware and times of "
        "each stand in `results.csv` and in `runs/`, with the counts per image that every number here is computed from."
    )
    blocks: list[Block] = [Text(text), Table("Where the results come from", columns, rows), Code("\n".join(commands))]
    missing = analysis.missing()
    if missing:
        names = listing([f"`{variant}` seed {seed}" for variant, seed in missing])
        blocks.append(Note(f"Not run: {names}.", "warning"))
    if analysis.foreign:
        names = listing([f"`{name}`" for name in analysis.foreign])
        blocks.append(Note(f"Left out, because another configuration made them: {names}.", "warning"))
    return Section("runs", "What was run", tuple(blocks))


def _place(run: Stored) -> tuple[str, str, str, str]:
    record = run.record
    commit = (record["commit"] or "none")[:10] + (" with changes" if record["uncommitted_changes"] else "")
    return f"`{commit}`", machine_in_words(record["hardware"]), record["libraries"]["torch"], record["precision"]
