"""The report: its numbers are those of the files, and it says no more than they do."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import markdown
from helpers.fake_results import DATASET, benchmark, write_results
from helpers.project import edit_arrays, edit_json, edit_yaml
from helpers.report_tables import tables, words

from pipeline.config.schema import DatasetConfig
from pipeline.datasets.prepared import Prepared
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.reporting import page
from pipeline.reporting.chapters.measured import curves
from pipeline.reporting.chapters.origin import provenance
from pipeline.reporting.page import Report
from pipeline.reporting.report import write_report
from pipeline.reporting.study import chosen_study
from pipeline.results.metrics import iou
from pipeline.results.record import EvaluationFiles

BENCHMARKS = ("camvid-fcn", "camvid-fcn-mcibi", "camvid-deeplabv3", "camvid-deeplabv3-mcibi")
PROTOCOLS = {"single_scale": "single scale", "ms_flip": "multi-scale + flip"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results and their report; not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    write_results(root, images=40, seeds=(0, 1, 2))
    write_report(root, Layout(root).report)
    return root


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy of them to change."""
    return shutil.copytree(finished, tmp_path / "root")


def _markdown(root: Path) -> str:
    return (Layout(root).report / "report.md").read_text(encoding="utf-8")


def _number(cell: str) -> float:
    return float(cell.replace("−", "-"))


def _interval(cell: str) -> tuple[float, float]:
    low, high = cell.strip("[]").split(",")
    return _number(low), _number(high)


def _class_iou(root: Path, name: str, seed: int, protocol: str) -> np.ndarray:
    """IoU in percent (K,), straight from the stored confusion matrix."""
    with np.load(Layout(root).evaluate(name, seed) / "details" / "confusion.npz") as archive:
        matrix = archive[protocol]
    return 100 * np.array([matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in range(11)])


def _score(root: Path, name: str, protocol: str) -> list[float]:
    return [_class_iou(root, name, seed, protocol).mean() for seed in (0, 1, 2)]


# Numbers


def test_scores_are_mean_and_deviation_over_seeds(finished: Path) -> None:
    rows = tables(_markdown(finished))["scores: mIoU on validation and test split"]
    assert [row["Variant"] for row in rows] == list(BENCHMARKS)
    for row in rows:
        for protocol, head in (("single_scale", "Single scale"), ("ms_flip", "ms+flip")):
            values = _score(finished, row["Variant"], protocol)
            assert _number(row[f"{head} %"]) == pytest.approx(np.mean(values), abs=0.006)
            assert _number(row[f"{head}: SD over seeds"]) == pytest.approx(np.std(values, ddof=1), abs=0.006)
            low, high = _interval(row[f"{head}: 95 % interval"])
            assert low < np.mean(values) < high
        assert row["Tested on"] == "camvid test"


def test_a_difference_is_that_of_the_scores_and_separates_a_real_gain_from_none(finished: Path) -> None:
    rows = tables(_markdown(finished))["gain: What does the memory add?"]
    assert len(rows) == 4
    for row in rows:
        protocol = next(name for name, words in PROTOCOLS.items() if words == row["Protocol"])
        framework = row["Difference"].partition(" ")[0]
        name = f"camvid-{framework.lower()}"
        without, with_ = (np.mean(_score(finished, full, protocol)) for full in (name, f"{name}-mcibi"))
        assert _number(row["Points"].strip("*")) == pytest.approx(with_ - without, abs=0.006)
        low, high = _interval(row["95 % interval"])
        assert row["Verdict"] == ("gain" if _number(row["p, adjusted"].strip("< ")) < 0.05 else "not resolved")
        assert low < with_ - without < high
    assert [row["Verdict"] for row in rows[:2]] == ["gain", "gain"]  # FCN; the other memory damages as much


def test_boundary_iou_and_its_differences_are_those_of_the_stored_counts(finished: Path) -> None:
    found = tables(_markdown(finished))
    rows = {row["Variant"]: row for row in found["boundaries: Boundary IoU, mean over classes"]}
    (fcn, _) = found["boundaries: Difference in boundary IoU"]
    for protocol, head in (("single_scale", "Single scale"), ("ms_flip", "ms+flip")):
        stated = {}
        for name in BENCHMARKS:
            files = [EvaluationFiles(Layout(finished), name, seed) for seed in (0, 1, 2)]
            stated[name] = 100 * np.mean([file.record.scores[protocol].boundary_miou for file in files])
            assert _number(rows[name][f"{head} %"]) == pytest.approx(stated[name], abs=0.006)
        change = stated["camvid-fcn-mcibi"] - stated["camvid-fcn"]
        assert _number(fcn[f"{head}, points"]) == pytest.approx(change, abs=0.006)
        low, high = _interval(fcn[f"{head}: 95 % interval"])
        assert low < change < high


def test_the_worst_images_are_those_with_the_lowest_mean_over_the_seeds(finished: Path) -> None:
    rows = tables(_markdown(finished))["worst: Worst images of camvid-fcn-mcibi"]
    own = []
    for seed in (0, 1, 2):
        ids, counts = EvaluationFiles(Layout(finished), "camvid-fcn-mcibi", seed).counts
        own.append([100 * np.nanmean(iou(*(part[i] for part in counts["ms_flip"]))) for i in range(len(ids))])
    means = dict(zip(ids, np.mean(own, axis=0), strict=True))
    assert [row["Image"] for row in rows] == sorted(ids, key=means.get)[:5]
    for row in rows:
        assert _number(row["camvid-fcn-mcibi %"]) == pytest.approx(means[row["Image"]], abs=0.006)


def test_the_data_chapter_counts_pixels_and_images_of_every_class(finished: Path) -> None:
    rows = tables(_markdown(finished))["data: Classes of camvid"]
    table = Prepared(Layout(finished).prepared("camvid")).table
    pixels = np.stack(table["histogram"])[:, :-1]
    assert [row["Class"] for row in rows] == list(DATASET.classes)
    assert sum(_number(row["test: pixels %"]) for row in rows) == pytest.approx(100, abs=0.5)
    assert [row["test: images"] for row in rows] == [f"{n} of {len(table)}" for n in (pixels > 0).sum(axis=0)]


def test_the_class_table_has_iou_share_and_gain_of_every_class(finished: Path) -> None:
    rows = tables(_markdown(finished))["classes: IoU per class, FCN → FCN + memory"]
    single = [row for row in rows if not row["Class"].endswith("mean")]
    shares = [_number(row["Share %"]) for row in single]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    names = [row["Class"].removesuffix(" (rare)") for row in single]
    assert set(names) == set(DATASET.classes)
    sides = {
        column: np.mean([_class_iou(finished, name, seed, "ms_flip") for seed in (0, 1, 2)], axis=0)
        for column, name in (("Without %", "camvid-fcn"), ("With %", "camvid-fcn-mcibi"))
    }
    for name, row in zip(names, single, strict=True):
        k = DATASET.classes.index(name)
        for column, values in sides.items():
            assert _number(row[column]) == pytest.approx(values[k], abs=0.006)
        gain = sides["With %"][k] - sides["Without %"][k]
        assert _number(row["ms+flip, points"].strip("*")) == pytest.approx(gain, abs=0.011)


def test_the_rarest_third_of_the_classes_has_a_mean(finished: Path) -> None:
    rows = tables(_markdown(finished))["classes: IoU per class, FCN → FCN + memory"]
    rare = [row for row in rows if row["Class"].endswith("(rare)")]
    assert len(rare) == 3
    mean = next(row for row in rows if row["Class"] == "rare classes, mean")
    assert _number(mean["With %"]) == pytest.approx(np.mean([_number(row["With %"]) for row in rare]), abs=0.01)


def test_the_memory_chapter_names_classes_that_were_never_written(results: Path) -> None:
    path = Layout(results).train("camvid-fcn-mcibi", 0) / "memory.npz"
    with np.load(path) as archive:
        final, touched = archive["final"], archive["touched"]
    final[3], touched[3] = 0, False
    edit_arrays(path, final=final, touched=touched)
    row = tables(words(results))["inside: State of the memory"][0]
    assert row["Never written"] == DATASET.classes[3]


# Words


def test_the_headline_names_a_gain_only_where_the_adjusted_p_value_is_small(finished: Path) -> None:
    lines = [line for line in _markdown(finished).splitlines() if line.startswith("- ") and "points**" in line]
    assert len(lines) == 2
    for line in lines:
        p = float(re.search(r"p = ([\d.]+)", line)[1])
        assert ("a gain" in line) == (p < 0.05)
        assert ("not resolved" in line) == (p >= 0.05)


def test_one_seed_is_called_one_seed(results: Path) -> None:
    edit_yaml(results / "params.yaml", seeds=[1])
    text = words(results)
    assert "There is **one seed**: how much another training would differ is unknown" in text
    assert "SD over seeds" not in text
    assert "Student" not in text.partition("## Scores")[2]


def test_records_in_git_show_whether_the_training_had_ended(finished: Path) -> None:
    study = chosen_study(finished)
    bare = {
        name: replace(variant, runs=tuple(replace(run, training=None, evaluation=None) for run in variant.runs))
        for name, variant in study.variants.items()
    }
    planned = tuple((run.name, run.seed) for run in study.runs)
    (table,) = markdown.tables(page.markdown(Report("", "", [curves(replace(study, variants=bare, planned=planned))])))
    assert [row["Variant"] for row in table.rows] == list(BENCHMARKS)
    files = [run.training.validation["miou"] for run in study.variants["camvid-fcn"].runs]
    step = 100 * np.mean([miou.iloc[-1] - miou.iloc[-2] for miou in files])
    assert _number(table.rows[0]["Last step, points"]) == pytest.approx(step, abs=0.006)
    assert table.rows[0]["After epochs"] == "2, 4, 6, 8, 10"


def test_a_dataset_of_people_has_numbers_and_no_pictures(tmp_path: Path) -> None:
    sides = [
        benchmark("fcn", memory).model_copy(update={"dataset": DatasetConfig(name="ccp")}) for memory in (False, True)
    ]
    write_results(tmp_path, benchmarks=sides, images=8)
    text = words(tmp_path)
    assert "figures/memory-camvid-fcn-mcibi.png" in text
    assert "figures/pictures" not in text


def test_one_training_of_each_side_is_neither_a_gain_nor_a_loss(results: Path) -> None:
    edit_yaml(results / "params.yaml", seeds=[1])
    text = words(results)
    rows = [row for name, table in tables(text).items() if name.startswith("gain:") for row in table]
    assert {row["Verdict"] for row in rows} == {"one training each"}
    assert not [row for row in rows if {"95 % interval", "p", "p, adjusted"} & set(row)]
    assert all(_interval(row["95 % interval over images alone"]) for row in rows)
    headline = text.partition("## What came out")[2].partition("\n## ")[0]
    assert "a gain (" not in headline
    assert "a loss (" not in headline
    assert "one training each, which says nothing of the methods" in headline


def test_a_benchmark_without_its_baseline_is_reported_without_a_gain(results: Path) -> None:
    edit_yaml(results / "params.yaml", benchmarks=["camvid-fcn-mcibi"])
    text = words(results)
    assert "No chosen benchmark has its baseline beside it" in text
    assert "classes: IoU per class, camvid-fcn-mcibi" in tables(text)
    for absent in ("figures/gain.png", "paired", "Not resolved", "pictures"):
        assert absent not in text.replace("No picture", "")


def test_frames_of_video_are_resampled_in_blocks(finished: Path) -> None:
    assert "The 40 frames are therefore resampled in 4 **blocks of at most 10 neighbours**" in _markdown(finished)
    assert "as if independent" not in _markdown(finished)


def test_settings_that_differ_within_a_pair_are_named(finished: Path, tmp_path: Path) -> None:
    assert "share every setting but those of the memory" in _markdown(finished)
    memory = benchmark("fcn", memory=True)
    longer = memory.model_copy(update={"schedule": memory.schedule.model_copy(update={"epochs": 20})})
    write_results(tmp_path, seeds=(0,), images=8, benchmarks=[benchmark("fcn", memory=False), longer])
    text = words(tmp_path)
    assert "share every setting" not in text
    assert "`camvid-fcn-mcibi` differs from its baseline in `schedule.epochs`" in text


def test_runs_of_different_origin_are_pointed_out(results: Path) -> None:
    assert "⚠️" not in _markdown(results)
    path = Layout(results).train("camvid-fcn", 1) / "cost.json"
    machine = json.loads(path.read_text())["hardware"] | {"gpu": "A GPU"}
    edit_json(path, commit="0" * 40, dirty=True, hardware=machine)
    text = words(results)
    assert "> ⚠️ **Runs come from different commits**" in text
    assert "> ⚠️ **Uncommitted changes** were present when these runs were made: `camvid-fcn` seed 1" in text
    assert "> ⚠️ **Runs were made on different hardware**" in text


# Refusals (those of single files: tests/results/test_record.py)


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("runs/plan/camvid-fcn.yaml", "plan"),
        ("data/prepared/camvid/dataset.json", "preprocess of camvid"),
        ("runs/curves/camvid-fcn/1/history.csv", "train of camvid-fcn, seed 1"),
        ("runs/train/camvid-fcn-mcibi/0/memory.npz", "train of camvid-fcn-mcibi, seed 0"),
        ("runs/evaluate/camvid-fcn/0/details/predictions/scene_000.png", "evaluate-msflip of camvid-fcn"),
    ],
)
def test_a_missing_file_is_named_with_the_stage_that_makes_it(results: Path, path: str, stage: str) -> None:
    (results / path).unlink()
    before = (Layout(results).report / "report.html").read_bytes()
    with pytest.raises(PipelineError, match=f"{re.escape(path)}: no such file; rerun the stage {stage}"):
        write_report(results, Layout(results).report)
    assert (Layout(results).report / "report.html").read_bytes() == before


def test_runs_on_different_images_are_refused(results: Path) -> None:
    path = Layout(results).evaluate("camvid-fcn-mcibi", 0) / "details" / "per_image.npz"
    with np.load(path) as archive:
        ids = archive["ids"][::-1]
    edit_arrays(path, ids=ids)
    with pytest.raises(PipelineError, match=r"per_image\.npz: other images than camvid-fcn, seed 0"):
        chosen_study(results)


# The files


class _Page(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="session")
def html(finished: Path) -> _Page:
    return _Page((Layout(finished).report / "report.html").read_text(encoding="utf-8"))


def test_equal_results_give_equal_bytes_and_leave_no_old_figure(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").touch()
    write_report(finished, tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) > 10
    for path in files:
        assert (tmp_path / path).read_bytes() == (Layout(finished).report / path).read_bytes(), path
    shown = set(re.findall(r"\]\((figures/[^)]+)\)", _markdown(finished)))
    assert shown == {path.as_posix() for path in files if path.suffix == ".png"}


def test_the_page_fetches_nothing_and_runs_nothing(finished: Path, html: _Page) -> None:
    text = (Layout(finished).report / "report.html").read_text(encoding="utf-8")
    assert not html.all("script", "link", "iframe", "object")
    for attributes in (attributes for _, attributes in html.tags):
        for name in ("src", "href", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in text
    assert "@import" not in text


def test_every_picture_has_a_description(finished: Path, html: _Page) -> None:
    pictures = html.all("img")
    assert len(pictures) == len(list((Layout(finished).report / "figures").glob("*.png")))
    assert all(len(picture["alt"] or "") > 40 for picture in pictures)
    assert all(re.search(r"!\[.{40,}?\]\(figures/", line) for line in _markdown(finished).splitlines() if "![" in line)


def test_every_table_header_has_a_scope_and_every_table_a_name(html: _Page) -> None:
    assert {header["scope"] for header in html.all("th")} == {"col", "row"}
    assert len(html.all("table")) == len(html.all("caption"))


def test_every_link_inside_leads_somewhere(finished: Path, html: _Page) -> None:
    anchors = {attributes["id"] for _, attributes in html.tags if "id" in attributes}
    assert {link["href"][1:] for link in html.all("a")} <= anchors
    text = _markdown(finished)
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= set(re.findall(r'<a id="(\w+)">', text))


def test_names_from_files_cannot_break_the_page(results: Path) -> None:
    path = Layout(results).train("camvid-fcn", 0) / "cost.json"
    machine = json.loads(path.read_text())["hardware"] | {"cpu": "<script>a|b*</script>"}
    edit_json(path, hardware=machine)
    alone = Report("title", "subtitle", (provenance(chosen_study(results)),))
    assert not _Page(page.html(alone)).all("script")
    assert r"<script\>a\|b\*</script\>" in page.markdown(alone).replace("\\<", "<")
