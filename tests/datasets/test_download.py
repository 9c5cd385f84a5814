"""The raw store: when it is fetched, and that its samples are counted."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from helpers.tiny_dataset import SPEC, fetch

from pipeline.datasets.download import changed_file, download
from pipeline.errors import PipelineError


def test_a_store_is_fetched_again_only_when_it_or_its_source_changed(tmp_path):
    raw, out = tmp_path / "store", tmp_path / "sources" / "tiny.json"
    download(SPEC, raw, None, out)
    first = out.read_text()
    assert '"files": 7' in first
    download(SPEC, raw, None, out)
    assert (raw / "calls").read_text() == "x"
    (raw / "val_a.jpg").write_bytes(b"damaged")
    download(SPEC, raw, None, out)
    assert (raw / "calls").read_text() == "xx"
    assert out.read_text() == first
    download(SPEC, raw, "elsewhere", out)
    assert (raw / "calls").read_text() == "xxx"


def damage(path):
    path.write_bytes(b"damaged")


@pytest.mark.parametrize("change", [damage, Path.unlink])
def test_a_file_that_changed_since_the_download_is_named(tmp_path, change):
    download(SPEC, tmp_path / "store", None, tmp_path / "tiny.json")
    change(tmp_path / "store" / "val_a.jpg")
    assert changed_file(tmp_path / "store") == "val_a.jpg"


def test_a_copied_store_has_not_changed(tmp_path):
    download(SPEC, tmp_path / "store", None, tmp_path / "tiny.json")
    shutil.copytree(tmp_path / "store", tmp_path / "copy", copy_function=shutil.copyfile)
    assert changed_file(tmp_path / "copy") is None


@pytest.mark.parametrize("fetched_before", [False, True])
def test_the_counts_are_checked_also_of_a_complete_store(tmp_path, fetched_before):
    if fetched_before:
        download(SPEC, tmp_path / "store", None, tmp_path / "before.json")
    spec = dataclasses.replace(SPEC, splits={"train": 5, "val": 1, "test": 1})
    with pytest.raises(PipelineError, match=r"split train: 2 images, expected 5; for a part of the data declare"):
        download(spec, tmp_path / "store", None, tmp_path / "tiny.json")
    assert not (tmp_path / "tiny.json").exists()


def test_an_image_without_its_label_is_named(tmp_path):
    def fetch_without_a_label(raw_dir, source):
        fetch(raw_dir, source)
        (raw_dir / "train_b_label.png").unlink()

    spec = dataclasses.replace(SPEC, fetch=fetch_without_a_label)
    with pytest.raises(PipelineError, match=r"train_b_label.png: missing"):
        download(spec, tmp_path / "store", None, tmp_path / "tiny.json")
