"""Stage `report`: results in, `report.md`, `report.html` and `figures/` out.

Written from result files alone: equal files give equal bytes, so the report holds no time of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.files.storage import new_file
from pipeline.reporting import render
from pipeline.reporting.analysis import Analysis, analyse
from pipeline.reporting.content import Figure, Report
from pipeline.reporting.read import read_study
from pipeline.reporting.results import Study
from pipeline.reporting.sections import (
    classes,
    confusion,
    cost,
    curves,
    gain,
    headline,
    memory,
    panels,
    provenance,
    published,
    reading,
    results,
)
from pipeline.reporting.wording import listing, plural

CHAPTERS = (headline, results, gain, classes, curves, confusion, panels, memory, cost, provenance, published, reading)


def write_report(root: Path, out_dir: Path) -> None:
    """Report on the benchmarks and seeds chosen in `root`/params.yaml, written to `out_dir`.

    Raises PipelineError, before anything is written, when a result is missing or does not belong to the others.
    """
    write_pages(build_report(analyse(read_study(root))), out_dir)


def write_pages(report: Report, out_dir: Path) -> None:
    """`report.md`, `report.html` and `figures/` in `out_dir`."""
    pages = {"report.md": render.markdown(report), "report.html": render.html(report)}
    figures = out_dir / "figures"
    shutil.rmtree(figures, ignore_errors=True)  # figures of an earlier choice of benchmarks
    figures.mkdir(parents=True)
    for figure in (block for section in report.sections for block in section.blocks if isinstance(block, Figure)):
        with new_file(figures / f"{figure.name}.png") as stream:
            stream.write(figure.png)
    for name, text in pages.items():
        with new_file(out_dir / name) as stream:
            stream.write(text.encode())


def build_report(analysis: Analysis) -> Report:
    """All chapters, in order."""
    sections = tuple(chapter.section(analysis) for chapter in CHAPTERS)
    return Report("Does a feature memory help segmentation?", _subtitle(analysis.study), sections)


def _subtitle(study: Study) -> str:
    datasets = sorted({result.spec.name for result in study.results})
    imported = len(study.results) - len(study.trained)
    parts = [f"{plural(len(study.trained), 'benchmark')} with {plural(len(study.project.seeds), 'seed')} each"]
    parts = (parts if study.trained else []) + ([plural(imported, "published checkpoint")] if imported else [])
    return f"MCIBI, reproduced: {listing(parts)} on {listing(datasets)}"
