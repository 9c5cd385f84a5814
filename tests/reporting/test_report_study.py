"""The report of a study, from the committed records of CamVid: what is missing, foreign or not comparable."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.project import ROOT, edit_yaml
from helpers.report_tables import tables

from pipeline.config.study import StudyPlan, load_plan
from pipeline.errors import PipelineError
from pipeline.reporting import page
from pipeline.reporting.report import build_report, write_study_report
from pipeline.reporting.study import recorded_study

COMMITTED = sorted(path.parts[-3] for path in (ROOT / "reports").glob("*/small/runs"))  # studies with records in Git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The study's files and records; nothing was run here."""
    for name in ("params", "studies", *(f"reports/{study}/small/runs" for study in COMMITTED)):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def _plan(root: Path, name: str = "camvid") -> StudyPlan:
    return load_plan(root, name, "small")


def _text(root: Path, name: str = "camvid") -> str:
    return page.markdown(build_report(recorded_study(root, _plan(root, name))))


def test_records_alone_make_report_figures_and_table(project: Path) -> None:
    out = write_study_report(project, _plan(project, "camvid-settings"))
    assert {path.name for path in out.iterdir()} == {"report.md", "report.html", "results.csv", "figures", "runs"}
    table = pd.read_csv(out / "results.csv")
    records = [json.loads(path.read_text()) for path in (out / "runs").glob("*.json")]
    scores = {record["variant"]: round(record["scores"]["ms_flip"]["miou"], 6) for record in records}
    assert dict(zip(table["variant"], table["ms_flip_miou"], strict=True)) == scores
    pages = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_study_report(project, _plan(project, "camvid-settings"))
    assert pages == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_committed_reports_are_those_of_the_committed_records() -> None:
    for name in COMMITTED:
        assert _text(ROOT, name) == (_plan(ROOT, name).folder(ROOT) / "report.md").read_text(encoding="utf-8")


def test_chapters_without_data_are_absent(project: Path) -> None:
    text = _text(project)
    for title in ("Learning curves", "Confusion", "Pictures", "Inside the memory", "Published rows"):
        assert f"## {title}" not in text


def test_a_search_names_the_best_of_each_group_and_compares_nothing(project: Path) -> None:
    text = _text(project, "camvid-settings")
    assert "- *plain*: `batch4-lr3` (batch 4, learning rate 0.003), **55.79 %**" in text
    for word in (
        "paired",
        "Not resolved",
        "Class by class",
        "what is compared",
        "means over the pairs",
        "SD over seeds",
    ):
        assert word not in text


def test_missing_runs_are_named_and_their_comparisons_incomplete(project: Path) -> None:
    runs = _plan(project).records(project)
    for suffix in (".json", ".npz"):
        (runs / f"fcn-memory-1{suffix}").unlink()
    text = _text(project)
    assert "24 of the 58 planned trainings are missing" in text
    assert re.search(r"> ⚠️ Not run: .*`fcn-memory` seed 1", text)
    assert "> The mean of the pairs is over the seeds that all of them share: 0." in text
    rows = tables(text)["memory: What does the memory add to each framework?"]
    assert {row["Seeds"] for row in rows if row["Difference"].startswith(("FCN", "Mean"))} == {"1"}
    assert {row["Seeds"] for row in rows if row["Difference"].startswith("PSPNet")} == {"2"}


def test_records_of_another_configuration_are_left_out_and_named(project: Path) -> None:
    study = project / "studies" / "camvid.yaml"
    variants = {
        "fcn-memory": {"group": "frameworks", "of": "fcn", "title": "FCN + memory", "set": {"memory": {"slots": 2}}}
    }
    edit_yaml(study, variants=_plan(project).config.model_dump(mode="json")["variants"] | variants)
    text = _text(project)
    # the variants that change it too
    assert "Left out, because another configuration made them: `fcn-memory-0`, `fcn-consistency-0` and" in text
    assert "`fcn-memory` |" not in text


def test_without_any_record_the_command_is_named(project: Path) -> None:
    shutil.rmtree(_plan(project).records(project))
    with pytest.raises(PipelineError, match="no result of this configuration; run `python -m pipeline study camvid"):
        recorded_study(project, _plan(project))


def test_records_on_other_images_are_refused(project: Path) -> None:
    path = _plan(project).records(project) / "fcn-memory-0.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays | {"ids": arrays["ids"][::-1]})
    message = r"fcn-memory-0\.json: other images than fcn, seed 0.*delete the record of one of them"
    with pytest.raises(PipelineError, match=message):
        recorded_study(project, _plan(project))


def test_the_class_table_averages_the_pairs(project: Path) -> None:
    """A pooled comparison's gain of a class is the mean of the gains in IoU of its pairs and common seeds."""
    study = recorded_study(project, _plan(project))
    comparison = study.comparisons[0]
    k = study.variants["fcn"].spec.classes.index("sign")
    gains = [
        run(with_, seed).class_iou("ms_flip")[k] - run(without, seed).class_iou("ms_flip")[k]
        for run in [lambda name, seed: next(r for r in study.variants[name].runs if r.seed == seed)]
        for without, with_ in comparison.pairs
        for seed in (0, 1)
    ]
    rows = tables(_text(project))[f"classes: {comparison.question}"]
    row = next(row for row in rows if row["Class"] == "sign (rare)")
    assert float(row["ms+flip, points"].strip("*").replace("−", "-")) == pytest.approx(100 * np.mean(gains), abs=0.006)
