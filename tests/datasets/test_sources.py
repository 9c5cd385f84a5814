"""What is specific to each published dataset: its label values, its lists, and the releases of it that are refused."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from helpers import miniature

from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.labels import read_raw, train_ids
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, read_image, read_label
from pipeline.datasets.sources.ccp import split_of
from pipeline.errors import PipelineError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SAMPLES = DATA / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the shared sample pictures")

ADE20K = get_dataset("ade20k", {"train": 3, "val": 2})
CAMVID = get_dataset("camvid", {"train": 3, "val": 2, "test": 2})
CITYSCAPES = get_dataset("cityscapes", {"train": 3, "val": 2, "test": 2})
COCOSTUFF = get_dataset("cocostuff10k", {"train": 3, "test": 2})
CCP = get_dataset("ccp", {"train": 3, "val": 2, "test": 2})
LIP = get_dataset("lip", {"train": 3, "val": 2})


def prepared(spec: DatasetSpec, source: Path, folder: Path) -> Prepared:
    download(spec, folder / "raw", str(source), folder / "source.json")
    prepare(spec, folder / "raw", folder / "prepared")
    return Prepared(folder / "prepared")


def problem(spec: DatasetSpec, source: Path, folder: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        prepared(spec, source, folder)
    return str(caught.value)


def rewrite(files: list[Path], change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert files
    for path in files:
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def label_ids(source: Path) -> list[Path]:
    return sorted((source / "gtFine").glob("*/*/*_labelIds.png"))


# What the labels mean

ID_TO_TRAIN = np.full(34, 255)
ID_TO_TRAIN[list(CITYSCAPES.submission_ids)] = range(19)
CCP_TO_TRAIN = np.full(59, 255)
CCP_TO_TRAIN[
    [*range(6), 7, 9, 13, 14, 19, 20, 24, 25, 27, 29, 31, 33, *range(36, 43), *range(44, 50), 51, 54, 55, 57]
] = range(35)
MEANINGS = [
    (ADE20K, lambda raw: np.where(raw == 0, 255, raw - 1), ("wall", "flag")),
    (CAMVID, lambda raw: np.where(raw == 11, 255, raw), ("sky", "bicyclist")),
    (COCOSTUFF, lambda raw: np.where(raw == 0, 255, raw - 1), ("person", "wood")),
    (CCP, lambda raw: CCP_TO_TRAIN[raw], ("background", "watch")),
    (CITYSCAPES, lambda raw: ID_TO_TRAIN[raw], ("road", "bicycle")),
    (LIP, lambda raw: raw, ("background", "right shoe")),
]


@pytest.mark.parametrize(("spec", "meaning", "first_and_last"), MEANINGS)
def test_label_values_become_train_ids(tmp_path, spec, meaning, first_and_last):
    data = prepared(spec, miniature.BUILDERS[spec.name](tmp_path), tmp_path)
    raw = {sample.id: sample.label for sample in spec.samples(tmp_path / "raw")}
    for row in data.split(["train"]).itertuples():
        assert np.array_equal(read_label(row.label), meaning(read_raw(raw[row.id], spec.label_variable).astype(int)))
    assert (spec.classes[0], spec.classes[-1]) == first_and_last


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_cocostuff_ignores_255_and_refuses_183(tmp_path, dtype):
    miniature.write_mat(tmp_path / "label.mat", S=np.array([[0, 1, 182, 255]], dtype))
    assert train_ids(COCOSTUFF, tmp_path / "label.mat").tolist() == [[255, 0, 181, 255]]
    miniature.write_mat(tmp_path / "label.mat", S=np.array([[183]], dtype))
    with pytest.raises(PipelineError, match=r"label.mat: label values \[183\] are not among the dataset's 0..182, 255"):
        train_ids(COCOSTUFF, tmp_path / "label.mat")


# What is refused


def listed_twice(source: Path) -> None:
    (source / "CamVid" / "val.txt").write_text(2 * "/SegNet/CamVid/val/val_0.png /SegNet/CamVid/valannot/val_0.png\n")


def with_part_pictures(source: Path) -> None:
    annotation = source / "annotations" / "training" / "ADE_train_00000001.png"
    shutil.copy(annotation, source / "images" / "training" / "ADE_train_00000001_seg.png")


def above_150(source: Path) -> None:
    rewrite([source / "annotations" / "validation" / "ADE_val_00000001.png"], lambda label: np.maximum(label, 151))


def without_label_map(source: Path) -> None:
    miniature.write_mat(sorted((source / "annotations").iterdir())[0], regionMapStuff=np.ones((3, 3)))


def of_version_1_0(source: Path) -> None:
    names = np.array([f"name {i}" for i in range(172)], dtype=object).reshape(-1, 1)
    for path in (source / "annotations").iterdir():
        miniature.write_mat(path, S=scipy.io.loadmat(path)["S"], names=names)


def named_train_ids(source: Path) -> None:
    for path in label_ids(source):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))


def train_ids_as_label_ids(source: Path, void: int) -> None:
    table = np.full(256, void, np.uint8)
    table[list(CITYSCAPES.submission_ids)] = range(19)
    rewrite(label_ids(source), lambda label: table[label])


def above_19(source: Path) -> None:
    path = sorted((source / "TrainVal_parsing_annotations" / "val_segmentations").iterdir())[0]
    rewrite([path], lambda label: np.where(label == 0, 20, label).astype(np.uint8))


IDS_INSTEAD = r"training ids \(0..18, 255\) instead of label ids"
REFUSED = [
    (CAMVID, lambda source: (source / "CamVid" / "test.txt").unlink(), "no folder in it has train.txt, val.txt, test"),
    (CAMVID, listed_twice, "id 'val_0' occurs more than once"),
    (ADE20K, with_part_pictures, "_seg.png files: this is the full ADE20K"),
    (ADE20K, above_150, r"val_00000001.png: label values \[151\] are not among the dataset's 0..150.*full ADE20K"),
    (COCOSTUFF, without_label_map, r"\d+.mat: no variable S in it"),
    (COCOSTUFF, of_version_1_0, "version 1.0"),
    (CITYSCAPES, named_train_ids, r"labelTrainIds.png but no \*_gtFine_labelIds.png"),
    (CITYSCAPES, lambda source: train_ids_as_label_ids(source, 255), f"holds 255.*{IDS_INSTEAD}"),
    (CITYSCAPES, lambda source: train_ids_as_label_ids(source, 0), f"no label id above 18.*{IDS_INSTEAD}"),
    (LIP, above_19, r"\d+.png: label values \[20\] are not among the dataset's 0..19"),
    (LIP, lambda source: (source / "TrainVal_images" / "val_id.txt").unlink(), "no val_id.txt in it"),
    (LIP, lambda source: shutil.rmtree(source / "TrainVal_parsing_annotations"), "no train_segmentations in it"),
]


@pytest.mark.parametrize(("spec", "change", "message"), REFUSED)
def test_another_release_or_a_damaged_copy_is_refused(tmp_path, spec, change, message):
    source = miniature.BUILDERS[spec.name](tmp_path, packed=False)
    change(source)
    with pytest.raises(PipelineError, match=message):
        prepared(spec, source, tmp_path)


# CamVid


def test_camvid_splits_are_the_lists(tmp_path):
    source = miniature.camvid(tmp_path, packed=False)
    lists = source / "CamVid"
    (lists / "val.txt").write_text((lists / "val.txt").read_text().splitlines()[0])
    (lists / "test.txt").write_text("")
    data = prepared(get_dataset("camvid", {"train": 3, "val": 1}), source, tmp_path)
    assert data.table["id"].tolist() == ["train_0", "train_1", "train_2", "val_0"]


@pytest.mark.slow  # all of its pictures
@needs_samples
def test_the_local_copy_of_camvid(tmp_path):
    data = prepared(get_dataset("camvid"), DATA / "CamVid", tmp_path)
    assert data.info["splits"] == {"train": 367, "val": 101, "test": 233}
    row = data.split(["val"]).iloc[0]
    raw = read_label(DATA / "CamVid" / "valannot" / f"{row.id}.png")
    assert np.array_equal(read_label(row.label), np.where(raw == 11, 255, raw))
    assert row.image.read_bytes() == (DATA / "CamVid" / "val" / f"{row.id}.jpg").read_bytes()
    pixels = np.stack(data.table.query("split == 'train'")["histogram"]).sum(axis=0)
    assert pixels.sum() == 367 * 360 * 480


# Clothing Co-Parsing


def test_the_split_of_ccp_depends_on_the_ids_alone(tmp_path):
    splits = split_of()
    assert Counter(splits.values()) == {"train": 604, "val": 100, "test": 300}
    assert (
        hashlib.sha256("".join(f"{k}{splits[k]}" for k in sorted(splits)).encode()).hexdigest()[:12] == "681c9fa7089e"
    )
    source = miniature.ccp(tmp_path, packed=False)
    data = prepared(CCP, source, tmp_path)
    assert {row.id: row.split for row in data.table.itertuples()}.items() <= splits.items()


@pytest.mark.slow  # all of its pictures
@needs_samples
def test_the_local_copy_of_ccp(tmp_path):
    data = prepared(get_dataset("ccp"), DATA / "CCP", tmp_path)
    pixels = np.stack(data.table["histogram"])  # (1004, 36), the ignored ones last
    assert ((pixels[:, :35] > 0).sum(axis=0) >= 30).all()
    assert pixels.sum(axis=0)[35] / pixels.sum() == pytest.approx(0.0094, abs=1e-4)


# ADE20K


@pytest.mark.parametrize("year", ["2016", "2021"])
def test_the_full_ade20k_is_refused(tmp_path, year):
    place = tmp_path / "full" / {"2016": "images/training/a/abbey", "2021": "images/ADE/training/urban"}[year]
    place.mkdir(parents=True)
    (tmp_path / "full" / {"2016": "index_ade20k.mat", "2021": "index_ade20k.pkl"}[year]).touch()
    (place / "ADE_train_00000970.jpg").touch()
    (place / "ADE_train_00000970_seg.png").touch()
    assert "full ADE20K" in problem(ADE20K, tmp_path / "full", tmp_path)


@needs_samples
def test_ade20k_samples(tmp_path):
    data = prepared(get_dataset("ade20k", {"val": 3}), SAMPLES / "ade20k", tmp_path)
    rows = data.split(["val"])
    assert rows[["height", "width"]].to_numpy().tolist() == [[512, 683], [364, 500], [300, 400]]
    assert sorted(np.unique(read_label(rows["label"][0])).tolist()) == [0, 1, 2, 4, 6, 9, 17, 255]


# COCO-Stuff 10k


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_broken_cocostuff_file_is_named(tmp_path, kept):
    source = miniature.cocostuff10k(tmp_path, packed=False)
    path = sorted((source / "annotations").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path.name}: cannot be read as a MATLAB file" in problem(COCOSTUFF, source, tmp_path)


def test_cocostuff_164k_is_refused(tmp_path):
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    assert "COCO-Stuff 164k" in problem(COCOSTUFF, tmp_path / "coco", tmp_path)


@needs_samples
def test_cocostuff_samples(tmp_path):
    data = prepared(get_dataset("cocostuff10k", {"train": 2, "test": 1}), SAMPLES / "cocostuff10k", tmp_path)
    for row in data.split(["train", "test"]).itertuples():
        raw = scipy.io.loadmat(SAMPLES / "cocostuff10k" / "annotations" / f"{row.id}.mat")["S"].astype(int)
        assert np.array_equal(read_label(row.label), np.where(raw == 0, 255, raw - 1))
        assert raw.shape == (row.height, row.width)


# Cityscapes


def test_cityscapes_ids_are_city_and_name_and_test_is_unlabelled(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    assert list((source / "gtFine" / "test").glob("*/*_labelIds.png"))
    data = prepared(CITYSCAPES, source, tmp_path)
    assert data.split(["val"])["id"].tolist() == [
        *("frankfurt/frankfurt_000000_000019_leftImg8bit", "lindau/lindau_000001_000019_leftImg8bit")
    ]
    assert data.split(["test"])["label"].isna().all()


def test_one_cityscapes_file_of_train_ids_is_found_by_its_255(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    download(CITYSCAPES, tmp_path / "raw", str(source), tmp_path / "source.json")
    path = next(path for path in label_ids(source) if "frankfurt" in path.name)
    rewrite([path], lambda label: np.where(label < 7, 255, 0).astype(np.uint8))
    with pytest.raises(PipelineError, match=rf"{path.name}: label values \[255\].*training ids"):
        prepare(CITYSCAPES, tmp_path / "raw", tmp_path / "prepared")


@pytest.mark.parametrize("name", ["leftImg8bit", "gtFine"])
def test_half_of_cityscapes_names_the_other_archive(tmp_path, name):
    archives = miniature.cityscapes(tmp_path)
    (archives / f"{name}_trainvaltest.zip").unlink()
    assert f"neither a folder {name}/ nor {name}_trainvaltest.zip" in problem(CITYSCAPES, archives, tmp_path)


@needs_samples
def test_cityscapes_samples(tmp_path):
    row = prepared(get_dataset("cityscapes", {"val": 1}), SAMPLES / "cityscapes", tmp_path).split(["val"]).iloc[0]
    derived = next((SAMPLES / "cityscapes" / "gtFine").glob("val/*/*_labelTrainIds.png"))
    assert (read_label(row.label) == read_label(derived)).mean() > 0.99  # both were reduced in size independently
    assert read_image(row.image).shape == (128, 256, 3)


# LIP


def test_lip_pairs_are_left_and_right():
    names = [(LIP.classes[left], LIP.classes[right]) for left, right in LIP.flip_pairs]
    assert names == [(f"left {part}", f"right {part}") for part in ("arm", "leg", "shoe")]


def test_lip_may_be_in_one_flat_folder(tmp_path):
    source, flat = miniature.lip(tmp_path, packed=False), tmp_path / "LIP"
    flat.mkdir()
    for folder in source.iterdir():
        for path in folder.iterdir():
            path.rename(flat / path.name)
    assert prepared(LIP, flat, tmp_path).info["splits"] == {"train": 3, "val": 2}


@needs_samples
def test_lip_samples(tmp_path):
    data = prepared(get_dataset("lip", {"train": 1, "val": 1}), SAMPLES / "lip", tmp_path)
    train, val = data.split(["train", "val"]).itertuples()
    assert (train.id, train.height, train.width) == ("684_2150041", 220, 154)
    assert (val.id, val.height, val.width) == ("86_185913", 377, 130)
    assert read_image(val.image).shape == (377, 130, 3)
    assert sorted(np.unique(read_label(val.label)).tolist()) == [0, 1, 5, 9, 13, 15]
