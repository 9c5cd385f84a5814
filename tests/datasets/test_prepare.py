"""The prepared form: what it holds, when it is made again, and which raw data is refused."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.tiny_dataset import SIZE, SPEC, fetch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.datasets import DatasetSpec, RawSample
from pipeline.datasets.labels import train_ids
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared, read_image, read_index, read_label, write_index
from pipeline.errors import PipelineError
from pipeline.predict.pictures import read_picture


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    fetch(folder, None)
    return folder


def prepared(raw: Path) -> Prepared:
    prepare(SPEC, raw, raw.parent / "out")
    return Prepared(raw.parent / "out")


def problem(raw: Path, spec: DatasetSpec = SPEC) -> str:
    with pytest.raises(PipelineError) as caught:
        prepare(spec, raw, raw.parent / "out")
    assert not (raw.parent / "out").exists()
    return str(caught.value)


def test_table_and_dataset_json(raw):
    data = prepared(raw)
    table = data.table
    assert list(zip(table["split"], table["id"], strict=True)) == [
        *(("test", "city/test_a"), ("train", "city/train_a"), ("train", "city/train_b"), ("val", "city/val_a"))
    ]
    row = table.iloc[1]
    raw_label = read_label(raw / "train_a_label.png")
    assert (row["height"], row["width"]) == SIZE
    assert row["image"] == "images/train/city/train_a.jpg"
    assert row["label"] == "labels/train/city/train_a.png"
    assert list(row["histogram"]) == [(raw_label == 1).sum(), (raw_label == 2).sum(), (raw_label == 0).sum()]
    train = np.stack(table.query("split == 'train'")["histogram"]).sum(axis=0)
    assert data.info["ignore_share"]["train"] == pytest.approx(train[2] / train.sum())
    assert data.info["splits"] == {"train": 2, "val": 1, "test": 1}
    assert data.split(["test"]).iloc[0].label is None
    assert data.info["ignore_share"]["test"] is None


def test_images_keep_their_bytes_and_other_formats_become_png(raw):
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    cv2.imwrite(str(raw / "train_a.jpg"), np.full(SIZE, 77, np.uint8))  # grey
    (raw / "val_a.jpg").unlink()
    Image.fromarray(pixels).save(raw / "val_a.bmp")
    grey, jpeg, png = prepared(raw).split(["train", "val"])["image"]
    assert read_image(grey).shape == (*SIZE, 3)
    assert jpeg.read_bytes() == (raw / "train_b.jpg").read_bytes()
    assert png.suffix == ".png"
    assert np.array_equal(read_image(png), pixels)


def test_palette_labels_are_read_as_indices(raw):
    indices = np.random.default_rng(2).integers(0, 3, SIZE, np.uint8)
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(raw / "val_a_label.png")
    label = read_label(prepared(raw).split(["val"]).iloc[0].label)
    assert np.array_equal(label, np.array([255, 0, 1], np.uint8)[indices])


ONES = np.ones(SIZE, np.uint8)


def tiff(bits: int, white: int, signed: bool, stored: bytes) -> bytes:
    """An uncompressed grey TIFF of one row; white: 0 or the highest value."""
    form, width = 2 if signed else 1, len(stored) * 8 // bits
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: white, 273: 122, 277: 1, 279: len(stored), 339: form}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + stored


def encoded(ending: str, *options: int) -> bytes:
    return cv2.imencode(ending, ONES, options)[1].tobytes()


CHANGED_IN_READING = {
    "1-bit PNG": ("a.png", encoded(".png", cv2.IMWRITE_PNG_BILEVEL, 1), "PNG, packed as 1"),  # PIL reads 1, OpenCV 255
    "1-bit TIFF, white is zero": ("a.tif", tiff(1, 0, False, b"\1"), "TIFF, packed as 1;I"),
    "8-bit TIFF, white is zero": ("a.tif", tiff(8, 0, False, b"\xfe"), "TIFF, packed as L;I"),
    "8-bit TIFF, signed": ("a.tif", tiff(8, 1, True, b"\xff"), "TIFF, packed as L with sign"),
    "2-bit TIFF": ("a.tif", tiff(2, 1, False, b"\1"), "TIFF, packed as L;2"),
    "4-bit TIFF": ("a.tif", tiff(4, 1, False, b"\1"), "TIFF, packed as L;4"),
    "PBM": ("a.pbm", b"P4 8 1\n\1", "PPM, packed as 1;I"),
    "PGM of 3": ("a.pgm", b"P5 1 1 3\n\1", "PPM, packed as L"),
    "JPEG": ("a.jpg", encoded(".jpg"), "JPEG"),
    "WebP": ("a.webp", encoded(".webp"), "WEBP"),
}


@pytest.mark.parametrize("kind", CHANGED_IN_READING)
def test_label_files_whose_values_change_in_reading_are_refused(tmp_path, kind):
    name, content, found = CHANGED_IN_READING[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{name}: {found}: .*save it as a PNG with 8 or 16 bits of grey"):
        train_ids(SPEC, tmp_path / name)


def test_a_label_in_a_tiff_of_jpeg_is_refused(tmp_path):
    Image.fromarray(ONES).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(PipelineError, match=r"a.tif: TIFF, compression jpeg: its label values may change"):
        train_ids(SPEC, tmp_path / "a.tif")


def test_labels_in_colours_of_16_bits_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((*SIZE, 3), 255, np.uint16))  # whose upper bytes are 0
    with pytest.raises(PipelineError, match=r"a.png: PNG, packed as RGB;16B: .*8 bits per channel"):
        train_ids(dataclasses.replace(SPEC, label_colours=COLOURS), tmp_path / "a.png")


KEPT = {"L": ("png", "tif", "bmp", "gif", "pgm"), "P": ("png", "tif", "bmp", "gif"), "I;16": ("png", "tif", "pgm")}


@pytest.mark.parametrize(("mode", "ending"), [(mode, ending) for mode in KEPT for ending in KEPT[mode]])
def test_every_kind_of_label_file_that_keeps_its_values_is_read(tmp_path, mode, ending):
    values = np.random.default_rng(5).integers(0, 3, SIZE, np.uint8)
    picture = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)
    if mode == "P":
        picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / f"a.{ending}")
    assert np.array_equal(train_ids(SPEC, tmp_path / f"a.{ending}"), np.array([255, 0, 1])[values])


@pytest.mark.parametrize("name", ["val_a_label.png", "val_a.png", "val_a.tif"])
def test_pictures_and_labels_of_several_frames_are_refused(raw, name):
    mode = "L" if "label" in name else "RGB"
    frames = [Image.new(mode, SIZE[::-1], colour) for colour in ("black", "white")]
    if "label" not in name:
        (raw / "val_a.jpg").unlink()
    frames[0].save(raw / name, save_all=True, append_images=frames[1:])
    assert f"{name}: 2 frames; save the one that counts as a separate picture" in problem(raw)


@pytest.mark.parametrize("ending", ["gif", "tif"])
def test_label_files_of_several_frames_are_refused(tmp_path, ending):
    first, second = (Image.fromarray(np.full(SIZE, value, np.uint8)) for value in (1, 2))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[second])
    with pytest.raises(PipelineError, match=rf"a\.{ending}: 2 frames; save the one that counts"):
        train_ids(SPEC, tmp_path / f"a.{ending}")


COLOURS = {(0, 0, 0): 0, (204, 0, 0): 1, (0, 204, 0): 2}


def coloured(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(list(COLOURS), np.uint8)[values])


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_labels_in_colours_are_read_by_their_table(raw, mode):
    values = np.random.default_rng(3).integers(0, 3, SIZE)
    for name in ("train_a", "train_b", "val_a"):
        coloured(values).convert(mode).save(raw / f"{name}_label.png")
    prepare(dataclasses.replace(SPEC, label_colours=COLOURS), raw, raw.parent / "out")
    label = read_label(Prepared(raw.parent / "out").split(["val"]).iloc[0].label)
    assert np.array_equal(label, np.array([255, 0, 1])[values])


def test_unknown_colours_are_named_with_their_pixels(raw):
    picture = coloured(np.zeros(SIZE, int))
    picture.paste((9, 8, 7), (0, 0, 3, 2))
    picture.save(raw / "val_a_label.png")
    message = problem(raw, dataclasses.replace(SPEC, label_colours=COLOURS))
    assert "val_a_label.png: colours that are not in `label_colours`: (9, 8, 7) 6 pixels" in message
    assert "train_a_label.png: expected a picture in colours" in message


def test_colours_have_to_mean_a_label_value():
    with pytest.raises(ValueError, match="label_colours"):
        dataclasses.replace(SPEC, label_colours={(0, 0, 0): 9})


@pytest.mark.parametrize("colour", [(-1, 256, 0), (0, 0), (0, 0, "0"), 0])
def test_colours_have_to_be_three_bytes(colour):
    with pytest.raises(ValueError, match=r"tiny: label_colours: .*\(R, G, B\), each 0..255"):
        dataclasses.replace(SPEC, label_colours={colour: 0})


@pytest.mark.parametrize("train_id", [2, 300, -1])
def test_label_values_have_to_mean_a_class_or_ignored(train_id):
    with pytest.raises(ValueError, match=rf"tiny: label_map: {{1: {train_id}}}: train ids are 0..1 and 255"):
        dataclasses.replace(SPEC, label_map={0: 255, 1: train_id})


@pytest.mark.parametrize("label_map", [{0: 0, 1: 1, -1: 255}, {-1: 255, 0: 0, 1: 1}])
def test_negative_label_values_are_looked_up(tmp_path, label_map):
    Image.fromarray(np.array([[-1, 0, 1]], np.int32)).save(tmp_path / "a.tif")
    assert train_ids(dataclasses.replace(SPEC, label_map=label_map), tmp_path / "a.tif").tolist() == [[255, 0, 1]]


def tagged(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as picture:
        picture.load()
        picture.save(path, exif=exif)


def test_a_picture_and_its_label_are_turned_alike(raw, capfd):
    label, image = read_label(raw / "val_a_label.png"), read_image(raw / "val_a.jpg")
    tagged(raw / "val_a_label.png", 3)
    tagged(raw / "val_a.jpg", 3)
    row = prepared(raw).split(["val"]).iloc[0]
    assert np.array_equal(read_label(row.label), np.array([255, 0, 1], np.uint8)[np.rot90(label, 2)])
    assert np.abs(read_image(row.image).astype(int) - np.rot90(image, 2)).mean() < 30  # saved as JPEG once more
    assert "EXIF" not in capfd.readouterr().out


def test_a_picture_that_is_turned_alone_is_counted_and_named(raw, capfd):
    tagged(raw / "val_a.jpg", 3)
    prepared(raw)
    assert "1 pictures and their labels have different EXIF orientations, such as val_a.jpg" in capfd.readouterr().out


def test_an_error_of_size_says_what_turned(raw):
    tagged(raw / "val_a.jpg", 6)
    message = problem(raw)
    assert re.search(r"val_a_label.png: size \(6, 8\), but .*\(8, 6\) turned by EXIF orientation 6", message)
    assert re.search(
        r"val_a.jpg: size \(8, 6\) turned by EXIF .*6, expected",
        problem(raw, dataclasses.replace(SPEC, image_size=SIZE)),
    )


def test_an_error_of_size_says_that_the_label_was_turned(raw):
    tagged(raw / "val_a_label.png", 6)
    assert re.search(r"val_a_label.png: size \(8, 6\) turned by EXIF .*6, but .*\(6, 8\)", problem(raw))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_invalid_orientation_counts_as_upright(raw, capfd, orientation):
    tagged(raw / "val_a.jpg", orientation)
    prepared(raw)
    assert "EXIF" not in capfd.readouterr().out


def test_an_exif_block_that_is_none_counts_as_upright(raw, capfd):
    with Image.open(raw / "val_a.jpg") as picture:
        picture.load()
    picture.save(raw / "val_a.jpg", exif=b"Exif\0\0neither II nor MM", dpi=(72, 72))
    assert read_image(prepared(raw).split(["val"]).iloc[0].image).shape[:2] == SIZE
    assert read_picture(raw / "val_a.jpg").shape[:2] == SIZE
    assert "EXIF" not in capfd.readouterr().out


def test_an_orientation_in_xmp_data_turns_neither_picture_nor_label(raw, capfd):
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    before = read_label(raw / "val_a_label.png")
    for name in ("val_a_label.png", "val_a.jpg"):
        with Image.open(raw / name) as picture:
            picture.load()
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        picture.save(raw / name, xmp=xmp, pnginfo=text)
    assert Image.open(raw / "val_a_label.png").getexif()[0x0112] == 3
    label = read_label(prepared(raw).split(["val"]).iloc[0].label)
    assert np.array_equal(label, np.array([255, 0, 1], np.uint8)[before])
    assert "EXIF" not in capfd.readouterr().out


def test_a_jpeg_that_lost_bytes_is_refused(raw):
    pixels = np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(raw / "val_a.jpg"), pixels)
    whole = (raw / "val_a.jpg").read_bytes()
    (raw / "val_a.jpg").write_bytes(whole[:2000] + whole[2500:])
    assert "val_a.jpg: Corrupt JPEG data" in problem(raw)


def test_equal_names_in_two_splits_are_two_images(raw):
    def same(raw_dir: Path) -> Iterator[RawSample]:
        for split in ("train", "val"):
            yield RawSample("0000", split, raw_dir / f"{split}_a.jpg", raw_dir / f"{split}_a_label.png")

    prepare(dataclasses.replace(SPEC, splits={"train": 1, "val": 1, "test": 0}, samples=same), raw, raw.parent / "out")
    table = Prepared(raw.parent / "out").split(["train", "val"])
    assert len(set(table["image"])) == len(set(table["label"])) == 2


def test_an_unknown_split_or_folder_is_an_error(raw, tmp_path):
    with pytest.raises(PipelineError, match="did you mean `train`"):
        prepared(raw).split(["trian"])
    with pytest.raises(PipelineError, match="dvc repro"):
        Prepared(tmp_path / "nothing")


def write(name: str, *shape: int, value: int = 0) -> Callable[[Path], object]:
    return lambda raw: cv2.imwrite(str(raw / name), np.full(shape, value, np.uint8))


def twins(raw: Path) -> Iterator[RawSample]:
    return (RawSample("x", "train", raw / f"{n}.jpg", raw / f"{n}_label.png") for n in ("train_a", "train_b"))


HINT = {"stray_label_hint": "perhaps another release"}
REFUSED = [
    (lambda raw: (raw / "train_b_label.png").unlink(), {}, "train_b_label.png: missing"),
    (lambda raw: (raw / "train_b.jpg").unlink(), {}, "split train: 1 images, expected 2"),
    (write("train_b_label.png", 3, 4), {}, r"train_b_label.png: size \(3, 4\), but .*train_b.jpg has \(6, 8\)"),
    (
        write("val_a_label.png", *SIZE, value=7),
        HINT,
        r"values \[7\] are not among the dataset's 0..2 \(perhaps another",
    ),
    (write("val_a_label.png", *SIZE, 3), {}, "val_a_label.png: expected one integer channel"),
    (id, {"unlabelled_splits": ()}, "test_a.jpg: has no label"),
    (id, {"image_size": (6, 9)}, r"train_a.jpg: size \(6, 8\), expected \(6, 9\)"),
    (id, {"splits": {"train": 2, "test": 0}, "samples": twins}, "train_a.jpg: id 'x' occurs more than once"),
]


@pytest.mark.parametrize(("damage", "spec", "message"), REFUSED)
def test_raw_data_that_does_not_fit_is_refused(raw, damage, spec, message):
    damage(raw)
    assert re.search(message, problem(raw, dataclasses.replace(SPEC, **spec)))


def test_undecodable_files_are_named_together(raw):
    (raw / "train_a.jpg").write_bytes(b"broken")
    (raw / "val_a_label.png").write_bytes(b"")
    message = problem(raw)
    assert "2 problems" in message
    assert "train_a.jpg: cannot be decoded" in message
    assert "val_a_label.png: cannot be decoded" in message


def test_at_most_twenty_problems_are_shown(raw):
    many = [RawSample(str(i), "test", raw / f"{i}.jpg", None) for i in range(30)]
    spec = dataclasses.replace(SPEC, splits={"train": 0, "test": 30}, samples=lambda raw_dir: iter(many))
    message = problem(raw, spec)
    assert message.count("missing") == 20
    assert "and 10 more" in message


def test_nothing_is_done_twice(raw, tmp_path):
    prepare(SPEC, raw, tmp_path / "out")
    before = (tmp_path / "out" / "table.parquet").stat()
    prepare(SPEC, raw, tmp_path / "out")
    after = (tmp_path / "out" / "table.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_lost_file_is_restored_and_changed_raw_data_is_prepared_again(raw):
    first = prepared(raw)
    first.split(["val"]).iloc[0].label.unlink()
    assert prepared(raw).info == first.info
    assert first.split(["val"]).iloc[0].label.is_file()
    cv2.imwrite(str(raw / "val_a_label.png"), np.ones(SIZE, np.uint8))
    assert prepared(raw).info["fingerprint"] != first.info["fingerprint"]


def test_a_damaged_table_is_named_and_made_again(raw):
    table = prepared(raw).root / "table.parquet"
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(PipelineError, match=r"table\.parquet: missing or damaged .*; run `dvc repro`"):
        Prepared(table.parent)
    assert len(prepared(raw).table) == 4


def test_classes_that_change_places_in_a_mirror_are_part_of_what_a_training_depends_on(raw, tmp_path):
    prepare(SPEC, raw, tmp_path)
    for name, spec in (("straight", SPEC), ("mirrored", dataclasses.replace(SPEC, flip_pairs=((0, 1),)))):
        write_index(spec, tmp_path, "a-benchmark", tmp_path / f"{name}.json")
    straight, mirrored = (read_index(tmp_path / f"{name}.json") for name in ("straight", "mirrored"))
    assert {key for key in straight if straight[key] != mirrored[key]} == {"flip_pairs"}
