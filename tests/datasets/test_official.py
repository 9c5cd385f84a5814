"""The published datasets in their official folders and archives: which sources are accepted, and what is not copied."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import miniature

from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.official import listed_ids
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, read_label
from pipeline.errors import PipelineError

OFFICIAL = {
    "ade20k": {"train": 20210, "val": 2000},
    "camvid": {"train": 367, "val": 101, "test": 233},
    "ccp": {"train": 604, "val": 100, "test": 300},
    "cityscapes": {"train": 2975, "val": 500, "test": 1525},
    "cocostuff10k": {"train": 9000, "test": 1000},
    "lip": {"train": 30462, "val": 10000},
}
NAMES = list(OFFICIAL)
every_dataset = pytest.mark.parametrize("name", NAMES)


def counts(name: str) -> dict[str, int]:
    """Number of images of a miniature."""
    return {split: 3 if split == "train" else 2 for split in OFFICIAL[name]}


def part(name: str) -> DatasetSpec:
    return get_dataset(name, counts(name))


def fetched(name: str, source: Path | None, raw: Path) -> Counter[str]:
    """Download; number of samples per split."""
    download(part(name), raw, None if source is None else str(source), raw.with_suffix(".json"))
    return Counter(sample.split for sample in part(name).samples(raw))


def problem(name: str, source: Path | None, raw: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        fetched(name, source, raw)
    return str(caught.value)


def test_byte_order_marks_are_no_part_of_an_id_list(tmp_path):
    (tmp_path / "ids.txt").write_bytes(2 * b"\xef\xbb\xbfa\r\nb\n\n")
    assert listed_ids(tmp_path / "ids.txt") == ["a", "b", "a", "b"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_an_id_list_has_to_be_utf8(tmp_path, encoding):
    (tmp_path / "ids.txt").write_text("a", encoding=encoding)
    with pytest.raises(PipelineError, match=r"ids.txt: not UTF-8 .*save the list as UTF-8"):
        listed_ids(tmp_path / "ids.txt")


@every_dataset
def test_the_miniature_is_refused_as_the_whole_dataset(name, tmp_path):
    assert get_dataset(name).splits == OFFICIAL[name]
    source = miniature.BUILDERS[name](tmp_path)
    with pytest.raises(PipelineError, match=rf"split train: 3 images, expected {OFFICIAL[name]['train']}"):
        download(get_dataset(name), tmp_path / "raw", str(source), tmp_path / "source.json")


@every_dataset
def test_archives_and_folders_give_the_same_prepared_data(name, tmp_path):
    found = []
    for packed in (True, False):
        folder = tmp_path / str(packed)
        folder.mkdir()
        assert fetched(name, miniature.BUILDERS[name](folder, packed=packed), folder / "raw") == counts(name)
        prepare(part(name), folder / "raw", folder / "prepared")
        found.append(Prepared(folder / "prepared"))
    packed, unpacked = found
    assert packed.info["fingerprint"] == unpacked.info["fingerprint"]
    assert packed.info["splits"] == counts(name)
    labelled = packed.table[packed.table["label"].notna()]
    assert set(labelled["split"]) == set(counts(name)) - set(part(name).unlabelled_splits)
    for path in labelled["label"]:
        assert set(np.unique(read_label(packed.root / path))) <= {*range(len(part(name).classes)), 255}


def deeper_folder(name: str, folder: Path) -> Path:
    miniature.BUILDERS[name](folder / "data", packed=False)
    return folder


def official_archives(name: str, folder: Path) -> Path:
    miniature.BUILDERS[name](folder / "data")
    (folder / "data" / "leftImg8bit_trainextra.zip").write_bytes(b"not needed, not opened")
    return folder / "data"


def archive_of_any_name(name: str, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "copy"), "gztar", deeper_folder(name, folder)))


@pytest.mark.parametrize("place", [deeper_folder, official_archives, archive_of_any_name])
@every_dataset
def test_the_source_may_be_a_folder_above_or_an_archive(name, place, tmp_path):
    (tmp_path / "disk" / "data").mkdir(parents=True)
    assert fetched(name, place(name, tmp_path / "disk"), tmp_path / "raw") == counts(name)


@pytest.mark.parametrize("name", ["cityscapes", "lip"])
def test_archives_inside_an_archive_are_unpacked(name, tmp_path):
    archives = miniature.BUILDERS[name](tmp_path)
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", archives.parent, archives.name)
    assert fetched(name, Path(outer), tmp_path / "raw") == counts(name)


def test_only_missing_folders_are_unpacked(tmp_path):
    archives = miniature.cityscapes(tmp_path)
    with zipfile.ZipFile(archives / "leftImg8bit_trainvaltest.zip") as stream:
        stream.extractall(archives)
    assert fetched("cityscapes", archives, tmp_path / "raw") == counts("cityscapes")
    assert [path.name for path in (tmp_path / "raw" / "unpacked").iterdir()] == ["1-gtFine_trainvaltest"]


@every_dataset
def test_a_local_folder_is_used_in_place(name, tmp_path):
    source = miniature.BUILDERS[name](tmp_path, packed=False)
    fetched(name, source, tmp_path / "raw")
    own = [path for path in (tmp_path / "raw").iterdir() if not path.is_symlink()]
    assert sorted(path.name for path in own) == [".digests.json", ".fetched.json"]
    sample = next(iter(part(name).samples(tmp_path / "raw")))
    assert sample.image.resolve().is_relative_to(source)


def test_a_change_in_a_folder_used_in_place_is_noticed(tmp_path):
    source, raw = miniature.ade20k(tmp_path, packed=False), tmp_path / "raw"
    fetched("ade20k", source, raw)
    before = raw.with_suffix(".json").read_text()
    image = source / "images" / "validation" / "ADE_val_00000001.jpg"
    cv2.imwrite(str(image), cv2.imread(str(image))[::-1])
    fetched("ade20k", source, raw)
    assert raw.with_suffix(".json").read_text() != before


def test_data_in_the_project_is_found_after_the_project_was_moved(tmp_path):
    project, moved = tmp_path / "project", tmp_path / "moved"
    raw = project / "data" / "raw" / "ade20k"
    project.mkdir()
    fetched("ade20k", miniature.ade20k(project, packed=False), raw)
    project.rename(moved)
    sample = next(iter(part("ade20k").samples(moved / raw.relative_to(project))))
    assert sample.image.resolve().is_relative_to(moved)


def test_data_elsewhere_is_found_after_the_project_was_moved(tmp_path):
    project, moved = tmp_path / "project", tmp_path / "deeper" / "moved"
    raw = project / "data" / "raw" / "ade20k"
    fetched("ade20k", miniature.ade20k(tmp_path, packed=False), raw)
    moved.parent.mkdir()
    project.rename(moved)
    sample = next(iter(part("ade20k").samples(moved / raw.relative_to(project))))
    assert sample.image.is_file()


def test_a_link_whose_target_is_gone_is_named_with_its_remedy(tmp_path):
    raw, source = tmp_path / "project" / "data" / "raw" / "ade20k", miniature.ade20k(tmp_path, packed=False)
    fetched("ade20k", source, raw)
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(PipelineError) as caught:
        prepare(part("ade20k"), raw, tmp_path / "prepared")
    assert f"{raw / source.name}: its target {source} does not exist" in str(caught.value)
    assert "correct `sources.ade20k` in params.yaml; then run `dvc repro --force download`" in str(caught.value)


def test_another_source_leaves_nothing_of_the_first(tmp_path):
    raw = tmp_path / "raw"
    fetched("lip", miniature.lip(tmp_path), raw)
    (tmp_path / "other").mkdir()
    other = miniature.lip(tmp_path / "other", packed=False)
    shutil.rmtree(other / "TrainVal_images" / "val_images")
    (other / "TrainVal_images" / "val_id.txt").unlink()
    shutil.rmtree(other / "TrainVal_parsing_annotations" / "val_segmentations")
    assert "split val: 0 images, expected 2" in problem("lip", other, raw)
    assert not (raw / "unpacked").exists()


def test_a_source_that_is_gone_costs_nothing_that_was_unpacked(tmp_path):
    source, raw = miniature.lip(tmp_path), tmp_path / "raw"
    fetched("lip", source, raw)
    unpacked = sorted((raw / "unpacked").iterdir())
    assert "no such folder or archive" in problem("lip", tmp_path / "mistyped", raw)
    assert sorted((raw / "unpacked").iterdir()) == unpacked
    assert next(iter(part("lip").samples(raw))).image.is_file()


def test_hidden_files_of_another_system_are_not_images(tmp_path):
    source = miniature.ade20k(tmp_path, packed=False)
    (source / "images" / "training" / "._ADE_train_00000001.jpg").write_bytes(b"resource fork")
    assert fetched("ade20k", source, tmp_path / "raw") == counts("ade20k")


def test_files_in_the_store_are_never_replaced_by_links(tmp_path):
    source = miniature.ade20k(tmp_path, packed=False)
    (tmp_path / "raw" / "ADEChallengeData2016").mkdir(parents=True)
    assert "in the way of a link" in problem("ade20k", source, tmp_path / "raw")


def test_the_store_itself_may_be_the_source(tmp_path):
    (tmp_path / "raw").mkdir()
    source = miniature.ade20k(tmp_path / "raw", packed=False)
    assert fetched("ade20k", source, tmp_path / "raw") == counts("ade20k")
    assert fetched("ade20k", tmp_path / "raw", tmp_path / "raw") == counts("ade20k")


def test_links_and_archives_that_the_user_put_into_the_store_are_a_source(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "disk").mkdir()
    archives = miniature.cityscapes(tmp_path / "disk")
    with zipfile.ZipFile(archives / "leftImg8bit_trainvaltest.zip") as stream:
        stream.extractall(tmp_path / "disk")
    (raw / "leftImg8bit").symlink_to(tmp_path / "disk" / "leftImg8bit")
    (archives / "gtFine_trainvaltest.zip").rename(raw / "gtFine_trainvaltest.zip")
    for _ in range(2):
        assert fetched("cityscapes", raw, raw) == counts("cityscapes")
        (raw / ".fetched.json").unlink()


@pytest.mark.parametrize("kept", [0.05, 0.95])
@every_dataset
def test_a_truncated_archive_is_named(name, kept, tmp_path):
    source = miniature.BUILDERS[name](tmp_path)
    archive = source if source.is_file() else sorted(source.iterdir())[-1]
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * kept)])
    message = problem(name, source, tmp_path / "raw")
    assert str(archive) in message
    assert "truncated" in message or "cut off" in message


@every_dataset
def test_a_missing_image_or_label_is_named(name, tmp_path):
    source = miniature.BUILDERS[name](tmp_path, packed=False)
    fetched(name, source, tmp_path / "raw")
    one, two = list(part(name).samples(tmp_path / "raw"))[:2]
    one.image.unlink()
    two.label.unlink()
    message = problem(name, source, tmp_path / "raw2")
    assert f"{one.image.name}: missing" in message
    assert f"{two.label.name}: missing" in message


@every_dataset
def test_a_wrong_or_missing_source_says_what_to_put_where(name, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert "no such folder or archive" in problem(name, tmp_path / "nowhere", tmp_path / "raw")
    if get_dataset(name).public:
        monkeypatch.setattr(f"pipeline.datasets.sources.{name}._URL", "http://127.0.0.1:9/archive.zip")  # unreachable
        monkeypatch.setattr("pipeline.files.fetch._ATTEMPTS", 1)
    expected = "cannot download" if get_dataset(name).public else "cannot be downloaded automatically"
    assert expected in problem(name, None, tmp_path / "raw")
    for source in (tmp_path / "nowhere", tmp_path / "empty", None):
        message = problem(name, source, tmp_path / "raw")
        assert f"`sources: {{{name}: PATH}}`" in message
        assert "http" in message
