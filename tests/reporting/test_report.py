"""The report: its numbers are those of the files, it says no more than they do, and it stands alone."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_results import DATASET, write_results
from helpers.project import edit_yaml
from helpers.report_tables import tables as _tables

from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.reporting import render
from pipeline.reporting.analysis import analyse
from pipeline.reporting.content import Report
from pipeline.reporting.read import read_study
from pipeline.reporting.report import build_report, write_report
from pipeline.reporting.sections import provenance

BENCHMARKS = ("camvid-fcn", "camvid-fcn-mcibi", "camvid-deeplabv3", "camvid-deeplabv3-mcibi")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results and their report; not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    write_results(root)
    write_report(root, Layout(root).report)
    return root


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Results to be spoilt."""
    return shutil.copytree(finished, tmp_path / "root")


def _markdown(root: Path) -> str:
    return (Layout(root).report / "report.md").read_text(encoding="utf-8")


def _rewritten(root: Path) -> str:
    """The Markdown that the results give now; nothing is drawn or written."""
    return render.markdown(build_report(analyse(read_study(root))))


def _number(cell: str) -> float:
    return float(cell.replace("−", "-"))


def _interval(cell: str) -> tuple[float, float]:
    low, high = cell.strip("[]").split(",")
    return _number(low), _number(high)


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _score(root: Path, name: str, seed: int, protocol: str) -> float:
    """mIoU in percent, straight from the stored confusion matrix."""
    with np.load(Layout(root).evaluate(name, seed) / "details" / "confusion.npz") as archive:
        matrix = archive[protocol]
    ious = [matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in range(len(matrix))]
    return 100 * float(np.mean(ious))


# Numbers


@pytest.mark.parametrize(("protocol", "words"), [("single_scale", "single scale"), ("ms_flip", "multi-scale + flip")])
def test_results_are_mean_and_deviation_over_seeds(finished, protocol, words):
    rows = _tables(_markdown(finished))[f"mIoU, {words}"]
    assert [row["Benchmark"] for row in rows] == list(BENCHMARKS)
    for row in rows:
        values = [_score(finished, row["Benchmark"], seed, protocol) for seed in (0, 1)]
        assert _number(row["mIoU %"]) == pytest.approx(np.mean(values), abs=0.006)
        assert _number(row["SD over seeds"]) == pytest.approx(np.std(values, ddof=1), abs=0.006)
        low, high = _interval(row["95 % interval"])
        assert low < np.mean(values) < high
        assert (row["Seeds"], row["Images"]) == ("2", "16")


def test_gain_is_the_difference_of_the_scores_and_tells_real_from_null(finished):
    rows = _tables(_markdown(finished))["Gain of the memory in mIoU, paired over seeds and images"]
    assert len(rows) == 4
    for row in rows:
        protocol = "single_scale" if row["Protocol"] == "single scale" else "ms_flip"
        name = f"camvid-{row['Framework'].lower()}"
        with_memory, without = (
            np.mean([_score(finished, full, seed, protocol) for seed in (0, 1)]) for full in (f"{name}-mcibi", name)
        )
        assert _number(row["Gain, points"]) == pytest.approx(with_memory - without, abs=0.006)
        assert row["Verdict"] == ("gain" if row["Framework"] == "FCN" else "not resolved")
        low, high = _interval(row["95 % interval"])
        assert low > 0 if row["Framework"] == "FCN" else low < 0 < high


def test_class_table_holds_iou_gain_and_share_of_every_class(finished):
    rows = _tables(_markdown(finished))["IoU per class, FCN"]
    assert {row["Class"] for row in rows} == set(DATASET.classes)
    shares = [_number(row["Share %"]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    for row in rows:
        k, ious = DATASET.classes.index(row["Class"]), []
        for name in ("camvid-fcn", "camvid-fcn-mcibi"):
            seeds = []
            for seed in (0, 1):
                with np.load(Layout(finished).evaluate(name, seed) / "details" / "confusion.npz") as archive:
                    matrix = archive["ms_flip"]
                seeds.append(100 * matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]))
            ious.append(np.mean(seeds))
        assert _number(row["Without %"]) == pytest.approx(ious[0], abs=0.006)
        assert _number(row["With %"]) == pytest.approx(ious[1], abs=0.006)
        assert _number(row["Gain, points"]) == pytest.approx(ious[1] - ious[0], abs=0.011)


def test_memory_chapter_tells_untouched_classes(results):
    path = Layout(results).train("camvid-fcn-mcibi", 0) / "memory.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["final"][3] = 0
    arrays["touched"][3] = False
    np.savez(path, **arrays)
    row = _tables(_rewritten(results))["State of the memory"][0]
    assert row["Never touched"] == DATASET.classes[3]


# Words


def test_headline_says_resolved_only_where_the_interval_excludes_zero(finished):
    headline = _markdown(finished).split("## Results")[0]
    assert re.search(r"gains [\d.]+ points on FCN\*\* .*excludes zero", headline)
    assert re.search(r"\*\*DeepLabV3\*\* the change of .*includes zero: \*\*not resolved\*\*", headline)


def test_one_seed_is_called_one_seed(results):
    edit_yaml(results / "params.yaml", seeds=[1])
    text = _rewritten(results)
    assert "There is **one seed**, so the intervals cover the choice of images only" in text
    assert {row["SD over seeds"] for row in _tables(text)["mIoU, single scale"]} == {"–"}


def test_benchmark_without_its_baseline_is_reported_without_a_gain(results):
    edit_yaml(results / "params.yaml", benchmarks=["camvid-fcn-mcibi"])
    text = _rewritten(results)
    assert "No chosen benchmark has its baseline beside it" in text
    assert "IoU per class, camvid-fcn-mcibi" in _tables(text)
    assert "figures/gain.png" not in text


def test_runs_of_different_origin_are_pointed_out(results):
    path = Layout(results).train("camvid-fcn", 1) / "cost.json"
    machine = json.loads(path.read_text())["hardware"] | {"gpu": "A GPU"}
    _edit_json(path, commit="0" * 40, dirty=True, hardware=machine)
    text = _rewritten(results)
    assert "⚠️ **Runs come from different commits**" in text
    assert "⚠️ **Uncommitted changes** were present when these runs trained: `camvid-fcn` seed 1" in text
    assert "⚠️ **Runs trained on different hardware**" in text


def test_runs_of_one_origin_raise_no_warning(finished):
    assert "⚠️" not in _markdown(finished)


# Refusals


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("runs/plan/camvid-fcn.yaml", "plan"),
        ("data/prepared/camvid/dataset.json", "preprocess of camvid"),
        ("runs/train/camvid-fcn/1/summary.json", "train of camvid-fcn, seed 1"),
        ("runs/curves/camvid-fcn/1/history.csv", "train of camvid-fcn, seed 1"),
        ("runs/train/camvid-fcn-mcibi/0/memory.npz", "train of camvid-fcn-mcibi, seed 0"),
        ("runs/evaluate/camvid-fcn/1/metrics.json", "evaluate-msflip of camvid-fcn, seed 1"),
        ("runs/evaluate/camvid-fcn/0/details/per_image.npz", "evaluate-msflip of camvid-fcn, seed 0"),
        ("runs/evaluate/camvid-fcn/0/details/predictions/scene_000.png", "evaluate-msflip of camvid-fcn"),
    ],
)
def test_missing_file_is_named_with_the_stage_that_makes_it(results, path, stage):
    (results / path).unlink()
    before = (Layout(results).report / "report.html").read_bytes()
    with pytest.raises(PipelineError, match=f"{re.escape(path)}: no such file; rerun the stage {stage}"):
        write_report(results, Layout(results).report)
    assert (Layout(results).report / "report.html").read_bytes() == before


def test_damaged_file_is_named(results):
    (Layout(results).train("camvid-fcn", 0) / "cost.json").write_text("{")
    with pytest.raises(PipelineError, match=r"camvid-fcn/0/cost\.json: cannot be read"):
        write_report(results, Layout(results).report)


def test_training_of_another_configuration_is_refused(results):
    edit = results / "runs" / "plan" / "camvid-fcn.yaml"
    edit_yaml(edit, optimizer={"lr": 0.5})
    with pytest.raises(PipelineError, match=r"summary.json: config_hash is .* but the plan says .* stage train"):
        write_report(results, Layout(results).report)


def test_evaluation_of_another_training_is_refused(results):
    _edit_json(Layout(results).evaluate("camvid-fcn", 0) / "details" / "evaluation.json", config_hash="0" * 12)
    with pytest.raises(PipelineError, match=r"evaluation.json: config_hash is '0+'.* stage evaluate-msflip"):
        write_report(results, Layout(results).report)


def test_training_on_other_data_is_refused(results):
    _edit_json(Layout(results).prepared("camvid") / "dataset.json", fingerprint="other")
    with pytest.raises(PipelineError, match=r"data_fingerprint is .* but the prepared data says 'other'"):
        write_report(results, Layout(results).report)


def test_pair_measured_on_different_images_is_refused(results):
    for seed in (0, 1):
        path = Layout(results).evaluate("camvid-fcn-mcibi", seed) / "details" / "per_image.npz"
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        arrays["ids"] = arrays["ids"][::-1]
        np.savez(path, **arrays)
    with pytest.raises(
        PipelineError, match=r"image ids that are not those of its baseline camvid-fcn .*cannot be paired"
    ):
        write_report(results, Layout(results).report)


def test_metrics_that_contradict_the_counts_are_refused(results):
    path = Layout(results).evaluate("camvid-fcn", 0) / "metrics.json"
    metrics = json.loads(path.read_text())
    _edit_json(path, ms_flip=metrics["ms_flip"] | {"miou": 0.99})
    with pytest.raises(PipelineError, match=r"metrics.json: ms_flip.miou is 0.99, but per_image.npz gives"):
        write_report(results, Layout(results).report)


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
def page(finished: Path) -> _Page:
    return _Page((Layout(finished).report / "report.html").read_text(encoding="utf-8"))


def test_equal_results_give_equal_bytes_and_leave_no_old_figure(finished, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").touch()
    write_report(finished, tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) > 10
    for path in files:
        assert (tmp_path / path).read_bytes() == (Layout(finished).report / path).read_bytes(), path
    shown = set(re.findall(r"\]\((figures/[^)]+)\)", _markdown(finished)))
    assert shown == {path.as_posix() for path in files if path.suffix == ".png"}


def test_html_fetches_nothing_and_runs_nothing(finished, page):
    text = (Layout(finished).report / "report.html").read_text(encoding="utf-8")
    assert not page.all("script", "link", "iframe", "object")
    for attributes in (attributes for _, attributes in page.tags):
        for name in ("src", "href", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in text
    assert "@import" not in text


def test_every_picture_has_a_description(finished, page):
    pictures = page.all("img")
    assert len(pictures) == len(list((Layout(finished).report / "figures").glob("*.png")))
    assert all(len(picture["alt"] or "") > 40 for picture in pictures)
    assert all(re.search(r"!\[.{40,}?\]\(figures/", line) for line in _markdown(finished).splitlines() if "![" in line)


def test_every_table_header_has_a_scope(page):
    assert {header["scope"] for header in page.all("th")} == {"col", "row"}


def test_every_link_inside_leads_somewhere(finished, page):
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= anchors
    text = _markdown(finished)
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= set(re.findall(r'<a id="(\w+)">', text))


def test_names_from_files_cannot_break_the_page(results):
    path = Layout(results).train("camvid-fcn", 0) / "cost.json"
    machine = json.loads(path.read_text())["hardware"] | {"cpu": "<script>a|b*</script>"}
    _edit_json(path, hardware=machine)
    chapter = provenance.section(analyse(read_study(results)))  # has no figures to draw
    alone = Report("title", "subtitle", (chapter,))
    assert not _Page(render.html(alone)).all("script")
    assert r"<script\>a\|b\*</script\>" in render.markdown(alone).replace("\\<", "<")
