"""What is particular about each published dataset: its label values, its lists, and the wrong releases of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from helpers import miniature

from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.labels import train_ids
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, read_image, read_label
from pipeline.errors import PipelineError

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the shared sample pictures")


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


# ADE20K

ADE20K = get_dataset("ade20k", {"train": 3, "val": 2})


def test_ade20k_has_void_first(tmp_path):
    source = miniature.ade20k(tmp_path, packed=False)
    row = prepared(ADE20K, source, tmp_path).split(["val"]).iloc[0]
    raw = read_label(source / "annotations" / "validation" / f"{row.id}.png")
    assert np.array_equal(read_label(row.label), np.where(raw == 0, 255, raw - 1))
    assert (ADE20K.classes[0], ADE20K.classes[149]) == ("wall", "flag")
    assert ADE20K.palette[:2] == ((120, 120, 120), (180, 120, 120))


@pytest.mark.parametrize("year", ["2016", "2021"])
def test_the_full_ade20k_is_refused(tmp_path, year):
    place = tmp_path / "full" / {"2016": "images/training/a/abbey", "2021": "images/ADE/training/urban"}[year]
    place.mkdir(parents=True)
    (tmp_path / "full" / {"2016": "index_ade20k.mat", "2021": "index_ade20k.pkl"}[year]).touch()
    (place / "ADE_train_00000970.jpg").touch()
    (place / "ADE_train_00000970_seg.png").touch()
    message = problem(ADE20K, tmp_path / "full", tmp_path)
    assert "full ADE20K" in message
    assert "ADEChallengeData2016" in message


def test_part_pictures_beside_the_images_tell_the_full_ade20k(tmp_path):
    source = miniature.ade20k(tmp_path, packed=False)
    shutil.copy(
        source / "annotations" / "training" / "ADE_train_00000001.png",
        source / "images" / "training" / "ADE_train_00000001_seg.png",
    )
    assert "_seg.png files: this is the full ADE20K" in problem(ADE20K, source, tmp_path)


def test_ade20k_names_above_150_are_refused(tmp_path):
    source = miniature.ade20k(tmp_path, packed=False)
    rewrite([source / "annotations" / "validation" / "ADE_val_00000001.png"], lambda label: np.maximum(label, 151))
    message = problem(ADE20K, source, tmp_path)
    assert "ADE_val_00000001.png: label values [151] are not among the dataset's 0..150" in message
    assert "full ADE20K" in message


@needs_samples
def test_ade20k_samples(tmp_path):
    data = prepared(get_dataset("ade20k", {"val": 3}), SAMPLES / "ade20k", tmp_path)
    rows = data.split(["val"])
    assert rows[["height", "width"]].to_numpy().tolist() == [[512, 683], [364, 500], [300, 400]]
    assert sorted(np.unique(read_label(rows["label"][0])).tolist()) == [0, 1, 2, 4, 6, 9, 17, 255]


# COCO-Stuff 10k

COCOSTUFF = get_dataset("cocostuff10k", {"train": 3, "test": 2})


def test_cocostuff_has_unlabelled_first_and_ignores_255(tmp_path):
    label = np.array([[0, 1, 182, 255]])
    miniature.write_mat(tmp_path / "label.mat", S=label)
    assert train_ids(COCOSTUFF, tmp_path / "label.mat").tolist() == [[255, 0, 181, 255]]
    assert len(COCOSTUFF.classes) == 182
    assert (COCOSTUFF.classes[0], COCOSTUFF.classes[181]) == ("person", "wood")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_cocostuff_labels_may_be_of_any_integer_type(tmp_path, dtype):
    miniature.write_mat(tmp_path / "label.mat", S=np.array([[3, 5]], dtype))
    assert train_ids(COCOSTUFF, tmp_path / "label.mat").tolist() == [[2, 4]]


def test_cocostuff_splits_are_the_lists(tmp_path):
    source = miniature.cocostuff10k(tmp_path, packed=False)
    lists = source / "imageLists"
    train, test = ((lists / f"{name}.txt").read_text() for name in ("train", "test"))
    (lists / "train.txt").write_text(test)
    (lists / "test.txt").write_text(train)
    data = prepared(get_dataset("cocostuff10k", {"train": 2, "test": 3}), source, tmp_path)
    assert data.split(["test"])["id"].tolist() == train.split()


def test_a_cocostuff_file_without_labels_is_named(tmp_path):
    source = miniature.cocostuff10k(tmp_path, packed=False)
    path = sorted((source / "annotations").iterdir())[0]
    miniature.write_mat(path, regionMapStuff=np.ones((3, 3)))
    assert f"{path.name}: no variable S in it" in problem(COCOSTUFF, source, tmp_path)


@pytest.mark.parametrize("kept", [0, 20, 200])
def test_a_broken_cocostuff_file_is_named(tmp_path, kept):
    source = miniature.cocostuff10k(tmp_path, packed=False)
    path = sorted((source / "annotations").iterdir())[-1]
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path.name}: cannot be read as a MATLAB file" in problem(COCOSTUFF, source, tmp_path)


def test_cocostuff_values_above_182_are_refused(tmp_path):
    miniature.write_mat(tmp_path / "label.mat", S=np.array([[183]]))
    with pytest.raises(PipelineError, match=r"label.mat: label values \[183\] are not among the dataset's 0..182, 255"):
        train_ids(COCOSTUFF, tmp_path / "label.mat")


def test_version_1_0_of_cocostuff_is_refused(tmp_path):
    source = miniature.cocostuff10k(tmp_path, packed=False)
    for path in (source / "annotations").iterdir():
        names = np.array([f"name {i}" for i in range(172)], dtype=object).reshape(-1, 1)
        miniature.write_mat(path, S=scipy.io.loadmat(path)["S"], names=names)
    assert "version 1.0" in problem(COCOSTUFF, source, tmp_path)


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

CITYSCAPES = get_dataset("cityscapes", {"train": 3, "val": 2, "test": 2})


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    data = prepared(CITYSCAPES, source, tmp_path)
    row = data.split(["val"]).iloc[0]
    raw = read_label(source / "gtFine" / "val" / f"{row.id.removesuffix('_leftImg8bit')}_gtFine_labelIds.png")
    road, bicycle = read_label(row.label)[raw == 7], read_label(row.label)[raw == 33]
    assert (road == 0).all()
    assert (bicycle == 18).all()
    assert (read_label(row.label)[raw < 7] == 255).all()
    assert CITYSCAPES.submission_ids[0] == 7
    assert CITYSCAPES.submission_ids[18] == 33


def test_cityscapes_ids_are_city_and_name(tmp_path):
    data = prepared(CITYSCAPES, miniature.cityscapes(tmp_path), tmp_path)
    assert data.split(["val"])["id"].tolist() == [
        *("frankfurt/frankfurt_000000_000019_leftImg8bit", "lindau/lindau_000001_000019_leftImg8bit")
    ]


def test_cityscapes_test_has_no_labels_though_the_archive_has_files(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    assert list((source / "gtFine" / "test").glob("*/*_labelIds.png"))
    data = prepared(CITYSCAPES, source, tmp_path)
    assert data.split(["test"])["label"].isna().all()
    assert data.info["class_frequency"]["test"] is None


def test_cityscapes_without_label_ids_is_refused(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    for path in (source / "gtFine").glob("*/*/*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    message = problem(CITYSCAPES, source, tmp_path)
    assert "labelTrainIds.png but no *_gtFine_labelIds.png" in message


@pytest.mark.parametrize("void", [255, 0])
def test_cityscapes_train_ids_under_the_name_of_label_ids_are_refused(tmp_path, void):
    """255 is no label id; and where there is no 255, fifty pictures without a label id above 18 are not believed."""
    source = miniature.cityscapes(tmp_path, packed=False)
    table = np.full(256, void, np.uint8)
    table[list(CITYSCAPES.submission_ids)] = range(19)
    rewrite(list((source / "gtFine").glob("*/*/*_labelIds.png")), lambda label: table[label])
    message = problem(CITYSCAPES, source, tmp_path)
    assert "training ids (0..18, 255) in place of label ids" in message


def test_one_cityscapes_file_of_train_ids_is_found_by_its_255(tmp_path):
    source = miniature.cityscapes(tmp_path, packed=False)
    raw = tmp_path / "raw"
    download(CITYSCAPES, raw, str(source), tmp_path / "source.json")
    path = sorted((source / "gtFine").glob("val/*/*_labelIds.png"))[0]
    rewrite([path], lambda label: np.where(label < 7, 255, 0).astype(np.uint8))
    with pytest.raises(PipelineError, match=rf"{path.name}: label values \[255\].*training ids"):
        prepare(CITYSCAPES, raw, tmp_path / "prepared")


@pytest.mark.parametrize("name", ["leftImg8bit", "gtFine"])
def test_half_of_cityscapes_names_the_other_archive(tmp_path, name):
    archives = miniature.cityscapes(tmp_path)
    (archives / f"{name}_trainvaltest.zip").unlink()
    assert f"neither a folder {name}/ nor {name}_trainvaltest.zip" in problem(CITYSCAPES, archives, tmp_path)


@needs_samples
def test_cityscapes_samples(tmp_path):
    data = prepared(get_dataset("cityscapes", {"val": 1}), SAMPLES / "cityscapes", tmp_path)
    row = data.split(["val"]).iloc[0]
    derived = next((SAMPLES / "cityscapes" / "gtFine").glob("val/*/*_labelTrainIds.png"))
    assert (read_label(row.label) == read_label(derived)).mean() > 0.99  # each was made smaller by itself
    assert read_image(row.image).shape == (128, 256, 3)


# LIP

LIP = get_dataset("lip", {"train": 3, "val": 2})


def test_lip_labels_are_train_ids_and_background_counts(tmp_path):
    source = miniature.lip(tmp_path, packed=False)
    row = prepared(LIP, source, tmp_path).split(["train"]).iloc[0]
    raw = read_label(source / "TrainVal_parsing_annotations" / "train_segmentations" / f"{row.id}.png")
    assert np.array_equal(read_label(row.label), raw)
    assert LIP.classes[0] == "background"


def test_lip_pairs_are_left_and_right():
    names = [(LIP.classes[left], LIP.classes[right]) for left, right in LIP.flip_pairs]
    assert names == [(f"left {part}", f"right {part}") for part in ("arm", "leg", "shoe")]


def test_lip_grey_images_are_kept_and_read_with_three_channels(tmp_path):
    source = miniature.lip(tmp_path, packed=False)
    row = prepared(LIP, source, tmp_path).split(["val"]).iloc[0]
    original = source / "TrainVal_images" / "val_images" / f"{row.id}.jpg"
    assert cv2.imread(str(original), cv2.IMREAD_UNCHANGED).ndim == 2
    assert row.image.read_bytes() == original.read_bytes()
    image = read_image(row.image)
    assert image.shape == (row.height, row.width, 3)
    assert (image == image[..., :1]).all()


def test_lip_may_lie_flat(tmp_path):
    source, flat = miniature.lip(tmp_path, packed=False), tmp_path / "LIP"
    flat.mkdir()
    for folder in source.iterdir():
        for path in folder.iterdir():
            path.rename(flat / path.name)
    assert (flat / "train_images").is_dir()
    assert prepared(LIP, flat, tmp_path).info["splits"] == {"train": 3, "val": 2}


def test_lip_values_above_19_are_refused(tmp_path):
    source = miniature.lip(tmp_path, packed=False)
    path = sorted((source / "TrainVal_parsing_annotations" / "val_segmentations").iterdir())[0]
    rewrite([path], lambda label: np.where(label == 0, 20, label).astype(np.uint8))
    assert f"{path.name}: label values [20] are not among the dataset's 0..19" in problem(LIP, source, tmp_path)


def test_lip_without_its_list_is_refused(tmp_path):
    source = miniature.lip(tmp_path, packed=False)
    (source / "TrainVal_images" / "val_id.txt").unlink()
    assert "no val_id.txt in it" in problem(LIP, source, tmp_path)


def test_lip_without_its_annotations_is_refused(tmp_path):
    archives = miniature.lip(tmp_path)
    (archives / "TrainVal_parsing_annotations.zip").unlink()
    assert "no train_segmentations in it" in problem(LIP, archives, tmp_path)


@needs_samples
def test_lip_samples(tmp_path):
    data = prepared(get_dataset("lip", {"train": 1, "val": 1}), SAMPLES / "lip", tmp_path)
    train, val = data.split(["train", "val"]).itertuples()
    assert (train.id, train.height, train.width) == ("684_2150041", 220, 154)
    assert (val.id, val.height, val.width) == ("86_185913", 377, 130)
    assert read_image(val.image).shape == (377, 130, 3)
    assert sorted(np.unique(read_label(val.label)).tolist()) == [0, 1, 5, 9, 13, 15]
