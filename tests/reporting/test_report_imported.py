"""Results without a training: imported checkpoints have no curves, no epochs and no first memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.fake_results import URL, row, write_results
from helpers.report_tables import tables, words

from pipeline.errors import PipelineError
from pipeline.reporting.report import write_report


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published row and its published baseline, both imported; not to be changed."""
    root = tmp_path_factory.mktemp("imported")
    base = row("camvid-base", memory=False)
    write_results(root, seeds=(0,), images=8, benchmarks=[base, row(baseline="camvid-base")])
    return root


def test_the_whole_report_is_written_with_pictures_and_without_curves(imported, tmp_path):
    write_report(imported, tmp_path)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"pictures-camvid-row", "memory-camvid-row", "gain"} <= names
    assert not [name for name in names if name.startswith("curves")]
    text = (tmp_path / "report.md").read_text()
    assert "Learning curves" not in text
    assert "2 published checkpoints on camvid" in text
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_beside_a_training_only_the_training_has_curves(tmp_path):
    base = row("camvid-base", memory=False, mode="train")
    write_results(tmp_path, seeds=(0,), images=8, benchmarks=[base, row(baseline="camvid-base")])
    text = words(tmp_path)
    alt = re.search(r"!\[Learning curves.*", text)
    assert alt is not None
    assert "camvid-base: last" in alt[0]
    assert "camvid-row: last" not in alt[0]


def test_a_checkpoint_is_named_with_its_address_digest_and_generation(imported):
    line = tables(words(imported))["runs: Imported checkpoints"][0]
    assert line == {
        "Variant": "camvid-base",
        "Generation": "paper",
        "Bytes": "1234",
        "sha256": "ab" * 32,
        "From": URL.replace("_", "\\_"),
    }


def test_only_the_end_of_an_imported_memory_is_described(imported):
    line = tables(words(imported))["inside: State of the memory"][0]
    assert (line["Mean cosine, first epoch"], line["Own vector, first to end"]) == ("–", "–")
    assert 0 < float(line["At the end"]) < 1


def test_an_import_has_no_time_per_iteration(imported):
    line = tables(words(imported))["cost: Cost"][0]
    assert (line["Training"], line["Per iteration"]) == ("import, 2.0 s", "–")
    assert "time per training iteration" not in words(imported)


def test_the_seeds_of_a_published_checkpoint_are_said_to_be_unknown(imported):
    text = words(imported)
    assert "All weights are **published checkpoints**, one training each" in text
    assert "**One seed.**" not in text


def test_a_missing_archive_is_named(tmp_path):
    write_results(tmp_path, seeds=(0,), images=8, benchmarks=[row("city-row", dataset="cityscapes")])
    path = "runs/evaluate/city-row/0/details/submission_ms_flip.zip"
    (tmp_path / path).unlink()
    with pytest.raises(PipelineError, match=f"{path}: no such file; rerun the stage evaluate-msflip of city-row"):
        words(tmp_path)


def test_images_that_are_no_video_are_not_called_frames(tmp_path):
    write_results(tmp_path, seeds=(0,), images=8, benchmarks=[row("city-row", dataset="cityscapes")])
    text = words(tmp_path)
    assert "Images are resampled as if independent." in text
    assert "frames of video" not in text
    assert "paired" not in text
