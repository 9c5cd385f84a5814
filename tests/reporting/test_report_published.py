"""The table of published rows: what may be compared with a published number, how it is judged, what was not run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.fake_results import row, write_results
from helpers.project import ROOT, edit_json, edit_yaml
from helpers.report_tables import tables, words

from pipeline.config import config_hash, load_resolved, resolved_yaml
from pipeline.layout import Layout
from pipeline.results.compare import prediction_interval

SINGLE, FLIP = "Single scale", "ms+flip"
GAINS = "Gain over the published baseline, single scale, points"
PROTOCOLS = (
    "whole image, scale 1; whole image, scales 0.5, 0.75, 1, 1.25, 1.5, 1.75, flip, probabilities averaged"  # defaults
)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one imported row; not to be changed."""
    root = tmp_path_factory.mktemp("imported")
    write_results(root, seeds=(0,), benchmarks=[row()])
    return root


@pytest.fixture
def results(imported: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(imported, tmp_path / "root")


def _published(root: Path) -> list[dict[str, str]]:
    return tables(words(root))["published: Published rows"]


def _publish(root: Path, **scores: tuple[float | None, float | None]) -> None:
    """Give the row other published numbers: paper or model_zoo = (single scale, ms+flip)."""
    path = root / "params" / "camvid-row.yaml"
    published = yaml.safe_load(path.read_text())["published"]
    pairs = {name: dict(zip(("single_scale", "ms_flip"), pair, strict=True)) for name, pair in scores.items()}
    edit_yaml(path, published=published | pairs)


def _measured(root: Path, protocol: str, benchmark_id: str = "camvid-row", seed: int = 0) -> float:
    metrics = json.loads((Layout(root).evaluate(benchmark_id, seed) / "metrics.json").read_text())
    return round(100 * metrics[protocol]["miou"], 2)


def _replan(root: Path, **changes: object) -> None:
    """An ablation of the imported row, as plan, training and evaluation would have written it."""
    layout = Layout(root)
    path = layout.resolved("camvid-row")
    edit_yaml(path, **changes)
    planned = load_resolved(path)
    changed = {"config_hash": config_hash(planned)}
    edit_json(layout.train("camvid-row", 0) / "summary.json", **changed)
    changed["protocol"] = planned.inference.model_dump(mode="json")
    edit_json(layout.evaluate("camvid-row", 0) / "details/evaluation.json", **changed)


# Imported checkpoints


def test_the_model_zoo_s_number_counts_and_the_paper_s_follows_where_it_differs(results):
    number = _measured(results, "ms_flip")
    _publish(results, paper=(60.0, number - 1), model_zoo=(60.0, number))
    (line,) = _published(results)
    assert line[f"{FLIP}: published"] == f"{number:.2f} ({number - 1:.2f})"
    assert line[f"{FLIP}: within tolerance"] == "yes"
    assert line[f"{SINGLE}: published"] == "60.00"


@pytest.mark.parametrize(
    ("generation", "words"), [("paper", "(paper)"), ("model_zoo", "(model zoo)"), ("local", "(local file row.pth)")]
)
def test_an_imported_row_says_which_generation_of_the_checkpoint_ran_and_how(results, generation, words):
    path = Layout(results).train("camvid-row", 0) / "summary.json"
    edit_json(path, checkpoint=json.loads(path.read_text())["checkpoint"] | {"generation": generation})
    (line,) = _published(results)
    assert line["How"] == f"imported checkpoint {words}"
    assert line["Protocol"] == PROTOCOLS


# Own trainings


def test_a_retrained_row_is_judged_by_the_prediction_interval_of_its_seeds(tmp_path):
    write_results(tmp_path, seeds=(0, 1, 2), benchmarks=[row(mode="train")])
    scores = np.array([_measured(tmp_path, "single_scale", seed=seed) for seed in (0, 1, 2)])
    low, high = prediction_interval(scores)
    for published, verdict in ((low + 0.02, "yes"), (low - 0.02, "no")):
        _publish(tmp_path, paper=(round(published, 2), None), model_zoo=(round(published, 2), None))
        (line,) = _published(tmp_path)
        answer, _, interval = line[f"{SINGLE}: within tolerance"].partition(" ")
        assert answer == verdict
        assert [float(end) for end in interval.strip("[]").split(",")] == pytest.approx([low, high], abs=0.03)
        assert line["How"] == "trained, 3 seeds"


# What may not be compared


def test_a_declared_part_of_the_data_shows_no_difference(results):
    path = Layout(results).prepared("camvid") / "dataset.json"
    edit_json(path, splits={"train": 8, "val": 4, "test": 16})
    text = words(results)
    (line,) = tables(text)["published: Published rows"]
    assert line[f"{SINGLE}: within tolerance"] == "subset: not comparable"
    assert line[f"{SINGLE}: difference"] == "–"
    scores = tables(text)["scores: mIoU on validation and test split"][0]
    assert scores["Tested on"] == "camvid test (subset)"
    assert "Only a declared part of camvid was used" in text


def test_an_ablation_names_the_changed_key_and_is_not_judged(results):
    scales = {"mode": "whole", "crop": None, "stride": None, "scales": [1.0], "flip": True, "average": "probabilities"}
    inference = yaml.safe_load(Layout(results).resolved("camvid-row").read_text())["inference"] | {"ms_flip": scales}
    _replan(results, inference=inference)
    (line,) = _published(results)
    assert line[f"{SINGLE}: within tolerance"] == "changed: `inference.ms_flip.scales"


def test_training_instead_of_importing_is_no_change(tmp_path):
    write_results(tmp_path, seeds=(0,), benchmarks=[row(mode="train")])
    edit_yaml(tmp_path / "params" / "camvid-row.yaml", mode="import", description="as published")
    (line,) = _published(tmp_path)
    assert "changed" not in line[f"{SINGLE}: within tolerance"]


@pytest.mark.parametrize("trained_on_val", [True, False])
def test_a_row_that_a_server_scores_names_its_archive_and_labels_the_local_number(tmp_path, trained_on_val):
    splits = ["train", "val"] if trained_on_val else ["train"]
    planned = row("city-row", dataset="cityscapes", paper=(None, 79.9), model_zoo=(None, 79.97))
    dataset = planned.dataset.model_copy(update={"train_splits": tuple(splits)})
    write_results(tmp_path, seeds=(0,), benchmarks=[planned.model_copy(update={"dataset": dataset})])
    text = words(tmp_path)
    (line,) = tables(text)["published: Published rows"]
    assert line[f"{FLIP}: published"] == "79.97 (79.90)"
    assert [line[f"{FLIP}: {name}"] for name in ("reproduced", "difference", "within tolerance")] == [
        "–",
        "–",
        "server",
    ]
    (server,) = tables(text)["published: Rows that a server scores: archives, and a number of another split"]
    assert "runs/evaluate/city-row/0/details/submission_ms_flip.zip" in server["Archives to submit"]
    assert float(server["ms+flip %"]) == _measured(tmp_path, "ms_flip", "city-row")
    seen = "val, local; these images were trained on"
    assert server["What these numbers are"] == (seen if trained_on_val else "val, local")
    assert ("whose images it was trained on" in text) == trained_on_val
    assert tables(text)["scores: mIoU on the validation split"][0]["Tested on"] == "cityscapes val (local)"


# Rows that were not run, baselines, open questions


def _params(root: Path) -> None:
    """The project's own benchmark files beside those of the results."""
    shutil.copytree(ROOT / "params", root / "params", dirs_exist_ok=True)


def test_all_rows_of_both_methods_are_listed_whether_they_were_run_or_not(results):
    _params(results)
    lines = {line["Row"]: line for line in _published(results)}
    assert len(lines) == 18 + 29 + 1
    assert lines["ade20k-resnet50os8"]["How"] == "not chosen"
    assert lines["cocostuff10k-vitlarge"][f"{FLIP}: published"] == "45.50 (45.23)"


def test_a_row_that_was_not_run_has_no_number(results):
    _params(results)
    for line in _published(results):
        if line["How"] == "not chosen":
            measured = [
                line[f"{protocol}: {name}"] for protocol in (SINGLE, FLIP) for name in ("reproduced", "difference")
            ]
            assert set(measured) == {"–"}


def test_the_published_gain_of_a_row_with_a_published_baseline_is_shown(results):
    _params(results)
    gains = {line["Row"]: line for line in tables(words(results))[f"published: {GAINS}"]}
    line = gains["ade20k-resnet50os8"]
    published = [float(line[f"{side}: published"]) for side in ("Row", "Baseline")]
    assert float(line["Published gain"]) == pytest.approx(published[0] - published[1], abs=0.005)
    assert line["Baseline"] == "base-deeplabv3_resnet50os8_ade20k"
    assert line["Gain here"] == "–"


def test_a_baseline_is_listed_only_when_it_was_run_and_then_the_gain_is_measured(tmp_path):
    base = row("camvid-base", memory=False, paper=(None, None), model_zoo=(58.0, None))
    write_results(tmp_path, seeds=(0,), benchmarks=[base, row(baseline="camvid-base")])
    found = tables(words(tmp_path))
    assert [line["Row"] for line in found["published: Published rows"]] == ["camvid-row", "camvid-base"]
    (gain,) = found[f"published: {GAINS}"]
    assert gain["Published gain"] == "+2.00"
    here = _measured(tmp_path, "single_scale") - _measured(tmp_path, "single_scale", "camvid-base")
    assert float(gain["Gain here"].split()[0]) == pytest.approx(here, abs=0.011)
    edit_yaml(tmp_path / "params.yaml", benchmarks=["camvid-row"])
    assert [line["Row"] for line in _published(tmp_path)] == ["camvid-row"]


def test_an_open_question_names_the_value_that_ran_and_whether_it_is_the_default(results):
    question = {"key": "segmentor.dropout", "note": "never published"}
    path = results / "params" / "camvid-row.yaml"
    edit_yaml(path, published=yaml.safe_load(path.read_text())["published"] | {"open_questions": [question]})
    caption = "published: Open questions, and how they were decided here"
    (line,) = tables(words(results))[caption]
    assert (line["Key"], line["Value that ran"]) == ("segmentor.dropout", "0.1")
    assert (line["The file's default"], line["What is open"]) == ("yes", "never published")
    segmentor = yaml.safe_load(Layout(results).resolved("camvid-row").read_text())["segmentor"]
    _replan(results, segmentor=segmentor | {"dropout": 0.0})
    (line,) = tables(words(results))[caption]
    assert (line["Value that ran"], line["The file's default"]) == ("0.0", "no, that is 0.1")


def test_published_numbers_of_another_edition_do_not_evaluate_again(results):
    """They are read from params/, so that a corrected one changes the report alone."""
    before = Layout(results).resolved("camvid-row").read_text()
    _publish(results, paper=(1.0, 2.0), model_zoo=(1.0, 2.0))
    (line,) = _published(results)
    assert line[f"{SINGLE}: published"] == "1.00"
    assert resolved_yaml(load_resolved(Layout(results).resolved("camvid-row"))) == before
