"""Chapter 11: the 18 published rows, and why most of them may be missing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.parse import read_yaml
from pipeline.layout import Layout
from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Column, Section, Table, Text
from pipeline.reporting.results import Result, Study
from pipeline.reporting.wording import NONE, percent, points

PUBLISHED = Path(__file__).parents[1] / "published.yaml"
COLUMNS = (
    *(Column("Row (dataset, backbone)", number=False), Column("Published single scale %")),
    *(Column("Published ms+flip %"), Column("Here", number=False)),
)


def section(analysis: Analysis) -> Section:
    """All published rows with what became of them."""
    rows = published_rows()
    run = [row for row in rows if row["id"] in _run(analysis.study)]
    count = "None" if not run else str(len(run))
    text = (
        f"{count} of the {len(rows)} rows that the authors publish {'was' if len(run) <= 1 else 'were'} run for this "
        "report. Numbers are those of the authors' later model zoo; where the paper's repository gives another one, it "
        "follows in parentheses. LIP's second number is with flip at a single scale. *Not chosen*: not among the "
        "`benchmarks` of `params.yaml`. *No parameter file*: nobody has written `params/ROW.yaml` yet. *Data absent*: "
        "nothing prepared under `data/prepared` on this machine."
    )
    table = Table("Published rows", COLUMNS, tuple(_row(analysis, row) for row in rows))
    return Section("published", "Published rows", (Text(text), table))


def published_rows() -> list[dict[str, Any]]:
    """The rows of published.yaml: id, dataset, backbone, and model_zoo and seed with mIoU in percent or None."""
    return read_yaml(PUBLISHED)["rows"]


def summary(study: Study) -> str:
    """One sentence for the headline."""
    rows = published_rows()
    run = [row["id"] for row in rows if row["id"] in _run(study)]
    if run:
        verb = "was" if len(run) == 1 else "were"
        return f"Of the {len(rows)} published rows {len(run)} {verb} run ([all rows](#published))."
    return (
        f"None of the {len(rows)} published rows was run, so nothing here says whether the published numbers can be "
        "reached ([why](#published))."
    )


def _run(study: Study) -> dict[str, Result]:
    return {result.id: result for result in study.results}


def _row(analysis: Analysis, row: dict[str, Any]) -> tuple[str, ...]:
    numbers = [_number(row["model_zoo"][name], row["seed"][name]) for name in ("single_scale", "ms_flip")]
    return (f"`{row['id']}`", *numbers, _fate(analysis, row))


def _number(zoo: float | None, seed: float | None) -> str:
    if zoo is None:
        return NONE if seed is None else f"({seed:.2f})"
    return f"{zoo:.2f}" if seed in (zoo, None) else f"{zoo:.2f} ({seed:.2f})"


def _fate(analysis: Analysis, row: dict[str, Any]) -> str:
    """Run, with the difference; or not, with every reason that applies."""
    study = analysis.study
    result = _run(study).get(row["id"])
    if result is not None:
        parts = []
        for name, words in (("single_scale", "single scale"), ("ms_flip", "ms+flip")):
            value, zoo = analysis.score(result, name).value, row["model_zoo"][name]
            difference = f" ({points(value - zoo / 100)})" if zoo is not None else ""
            parts.append(f"{words} {percent(value)}{difference}")
        return f"**run**: {', '.join(parts)}"
    parameters = (study.root / "params" / f"{row['id']}.yaml").is_file()
    reasons = ["not chosen" if parameters else "no parameter file"]
    if not (Layout(study.root).prepared(row["dataset"]) / "dataset.json").is_file():
        reasons.append("data absent")
    return f"not run: {', '.join(reasons)}"
