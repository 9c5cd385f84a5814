"""Write a report: `report.md`, `report.html` and `figures/`, from result files alone.

Equal files give equal bytes: a report contains no date and nothing else about the machine that writes it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config.study import StudyPlan
from pipeline.files.locks import exclusive
from pipeline.files.storage import new_file
from pipeline.reporting import page
from pipeline.reporting.chapters import compared, images, inside, measured, origin, probes, rows, verdict
from pipeline.reporting.page import Figure, Report
from pipeline.reporting.study import Study, chosen_study, recorded_study
from pipeline.reporting.words import listing, plural
from pipeline.results.run import result_table

CHAPTERS = (
    *(verdict.verdict, compared.headline, compared.comparisons, measured.scores, measured.boundaries),
    *(compared.classes, measured.curves, measured.confusion, images.pictures, images.worst, probes.probes),
    *(inside.inside, measured.cost, images.data, origin.provenance, rows.published, origin.reading),
)


def write_report(root: Path, out_dir: Path) -> None:
    """Report on the benchmarks and seeds chosen in `root`/params.yaml, written to `out_dir`.

    Raises PipelineError, before anything is written, when a result is missing or does not belong to the others.
    """
    _write(build_report(chosen_study(root)), out_dir)


def write_study_report(root: Path, plan: StudyPlan) -> Path:
    """Report on a study from its records, and `results.csv`, in the study's folder; returns the folder.

    Raises PipelineError when there is no record yet, or records do not belong together.
    """
    out, study = plan.folder(root), recorded_study(root, plan)
    report = build_report(study)
    with exclusive(root / "runs" / "studies" / f"{plan.name}-{plan.size}-report"):  # shells may end together
        _write(report, out)
        result_table(study.runs, study.ran[0].spec.classes).to_csv(out / "results.csv", index=False)
    return out


def build_report(study: Study) -> Report:
    """All chapters for which the study has data, in order."""
    made = [chapter(study) for chapter in CHAPTERS]
    sections = [part for one in made if one is not None for part in (one if isinstance(one, list) else [one])]
    return Report(study.title, _subtitle(study), sections)


def _subtitle(study: Study) -> str:
    if study.is_recorded:
        return f"{study.description}: {len(study.runs)} of {len(study.planned)} planned trainings"
    imported = len(study.ran) - len(study.trained)
    parts = [plural(len(study.trained), "trained benchmark")] if study.trained else []
    parts += [plural(imported, "published checkpoint")] if imported else []
    return f"MCIBI, reproduced: {listing(parts)} on {listing(sorted({v.spec.name for v in study.ran}))}"


def _write(report: Report, out_dir: Path) -> None:
    texts = {"report.md": page.markdown(report), "report.html": page.html(report)}
    figures = out_dir / "figures"
    shutil.rmtree(figures, ignore_errors=True)  # figures of an earlier choice of benchmarks
    figures.mkdir(parents=True)
    for figure in (part for section in report.sections for part in section.parts if isinstance(part, Figure)):
        with new_file(figures / f"{figure.name}.png") as stream:
            stream.write(figure.png)
    for name, text in texts.items():
        with new_file(out_dir / name) as stream:
            stream.write(text.encode())
