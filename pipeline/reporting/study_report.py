"""The report of a study, from its stored results alone: equal results give equal bytes."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.study import Plan
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.files.locks import exclusive
from pipeline.reporting.analysis import PRIMARY
from pipeline.reporting.content import Block, Fact, Facts, Report, Section, Text
from pipeline.reporting.report import write_pages
from pipeline.reporting.sections.headline import verdict
from pipeline.reporting.study_analysis import StudyAnalysis
from pipeline.reporting.study_comparison import section as comparison_section
from pipeline.reporting.study_runs import section as what_was_run
from pipeline.reporting.study_tables import all_scores, class_gains
from pipeline.reporting.wording import (
    PROTOCOLS,
    percent,
    plain,
    plural,
    points,
    points_interval,
)
from pipeline.results.statistics import SAMPLES, Estimate
from pipeline.results.stored import read_stored, result_table, study_dir


def write_study_report(root: Path, plan: Plan) -> Path:
    """`report.md`, `report.html`, `figures/` and `results.csv` in the study's folder; returns the folder.

    Raises PipelineError when there is no result yet, or results do not belong together.
    """
    out = study_dir(root, plan)
    stored, foreign = read_stored(root, plan)
    if not stored:
        command = f"python -m pipeline study {plan.name} --size {plan.size}"
        raise PipelineError(f"{out / 'runs'}: no result of this configuration; run `{command}` first")
    dataset = next(iter(plan.benchmarks.values())).dataset.name
    analysis = StudyAnalysis(plan, tuple(stored), tuple(foreign), get_dataset(dataset).classes)
    report = build_study_report(analysis)
    with exclusive(root / "runs" / "studies" / f"{plan.name}-{plan.size}-report"):  # shells may end together
        write_pages(report, out)
        result_table(stored).to_csv(out / "results.csv", index=False)
    return out


def build_study_report(analysis: StudyAnalysis) -> Report:
    """Headline, one chapter per comparison, gains by class, all scores, what was run, how to read it."""
    plan = analysis.plan
    chapters = [_headline(analysis)]
    chapters += [comparison_section(analysis, key) for key in plan.config.comparisons]
    if plan.config.comparisons:
        chapters.append(class_gains(analysis))
    chapters += [all_scores(analysis), what_was_run(analysis), _reading(analysis)]
    done, planned = len(analysis.stored), len(plan.runs)
    subtitle = f"{plan.config.sizes[plan.size].description}: {done} of {planned} planned trainings"
    return Report(plan.config.title, subtitle, tuple(chapters))


def _headline(analysis: StudyAnalysis) -> Section:
    if not analysis.plan.config.comparisons:
        return _best_on_validation(analysis)
    facts, sentences = [], []
    for comparison in analysis.plan.config.comparisons.values():
        estimate = analysis.pooled(comparison, PRIMARY) if comparison.pooled else None
        if estimate is None:
            continue
        judged = verdict(estimate)
        tone = judged if judged in ("gain", "loss") else "neutral"
        interval = points_interval(estimate.low, estimate.high)
        facts.append(Fact(comparison.question, points(estimate.value), f"mIoU points {interval}, {judged}", tone))
        seeds = analysis.common_seeds(comparison)
        singles = [analysis.gain(pair, PRIMARY, seeds) for pair in comparison.pairs]
        ahead = sum(single is not None and single.value > 0 for single in singles)
        sentences.append(
            f"*{comparison.question}* On average over {plural(len(singles), 'pair')} **{points(estimate.value)} "
            f"points** {interval} with {PROTOCOLS[PRIMARY]}: {_in_words(estimate)}; ahead in {ahead} of "
            f"{plural(len(singles), 'pair')}."
        )
    if not sentences:
        sentences.append("No pooled comparison is complete yet.")
    blocks: list[Block] = [Text("\n\n".join([*sentences, _hedge(analysis)]))]
    return Section("headline", "What came out", (*blocks, Facts(tuple(facts))) if facts else tuple(blocks))


def _best_on_validation(analysis: StudyAnalysis) -> Section:
    """The headline of a search: it has candidates instead of pairs, and the test split has no say."""
    groups: dict[str, list[str]] = {}
    for name, variant in analysis.plan.config.variants.items():
        if analysis.seeds(name):
            groups.setdefault(variant.group, []).append(name)
    lines = ["Best of each group on the validation split, in mIoU (all candidates: [All scores](#scores)):", ""]
    for group, names in groups.items():
        best = max(names, key=analysis.validation)
        title = plain(analysis.plan.config.variants[best].title)
        lines.append(f"- *{plain(group)}*: `{best}` ({title}), **{percent(analysis.validation(best))} %**")
    if missing := len(analysis.missing()):
        lines += ["", f"{plural(missing, 'training')} missing."]
    return Section("headline", "What came out", (Text("\n".join(lines)),))


def _in_words(estimate: Estimate) -> str:
    if not estimate.resolved:
        return "not resolved, the interval includes zero"
    kind = "gain" if estimate.value > 0 else "loss"
    if len(estimate.per_seed) == 1:
        return f"a {kind} of these trainings that the choice of images does not explain"
    return f"a {kind} that these seeds and images resolve"


def _hedge(analysis: StudyAnalysis) -> str:
    missing = len(analysis.missing())
    unfinished = f"{missing} of the planned trainings are missing. " if missing else ""
    return (
        f"{unfinished}Comparisons with one seed have intervals over images only: how much another training would "
        "differ is then not part of them ([how to read this](#reading))."
    )


def _reading(analysis: StudyAnalysis) -> Section:
    plan, frames = analysis.plan, analysis.frames_per_block
    blocks = int(analysis.blocks.max()) + 1
    return Section(
        "reading",
        "How to read this",
        (
            Text(
                f"- Every difference is **paired**: both sides are resampled with the same images and the same seeds "
                f"({SAMPLES} resamples), so that what they share cancels.\n"
                f"- Test images are frames of video, and neighbours resemble each other. The {len(analysis.blocks)} "
                f"frames are therefore resampled in {blocks} **blocks of at most {frames} neighbours**; resampling "
                "single frames would give narrower intervals that promise too much.\n"
                "- With several seeds the intervals cover seeds too; with one they do not.\n"
                "- *Not resolved* means that the interval includes zero, not that there is no effect. No correction "
                "for the number of comparisons is made: one interval in twenty misses by design.\n"
                f"- {_settings(plan)} The last weights are evaluated on the test split, once; the validation score is "
                "theirs too, in single scale. The training loss is the mean cross entropy of the final logits over "
                "the last quarter of the iterations."
            ),
        ),
    )


def _settings(plan: Plan) -> str:
    """Where optimiser, schedule and all else come from."""
    note = plan.config.sizes[plan.size].note
    return (
        f"Settings are those of `params/{plan.config.benchmark}.yaml`, except where `studies/{plan.name}.yaml` changes "
        f"them; none was tuned for what is compared.{f' {note}' if note else ''}"
    )
