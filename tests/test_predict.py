"""Predicting one's own pictures: every kind of file that people have, and the files that come out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY
from model_benchmarks import SMALL_ENCODER
from numpy.typing import NDArray
from PIL import Image
from trained_run import write_run

from pipeline import __main__ as commands
from pipeline.config import Benchmark
from pipeline.config.parse import parse
from pipeline.datasets import get_dataset
from pipeline.datasets.prepared import read_image
from pipeline.datasets.transforms import test_transform as transform_for_test
from pipeline.errors import PipelineError
from pipeline.evaluation.inference import predict
from pipeline.handover.source import find_model
from pipeline.predict.network import chosen_protocol
from pipeline.predict.pictures import read_picture
from pipeline.predict.run import predict_folder

SIZE = (40, 52)
BENCHMARK = parse(Benchmark, {"id": "tiny", **TINY, "encoder": SMALL_ENCODER | {"depth": 3}}, "tiny")
DIGITS = get_dataset("digits")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two runs of the small benchmark."""
    root = tmp_path_factory.mktemp("project")
    for seed in (0, 1):
        write_run(root, BENCHMARK, seed)
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def scene(seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """RGB (H, W, 3) in patches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def write(path: Path, pixels: NDArray[np.uint8] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene() if pixels is None else pixels).save(path)
    return path


def labels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ms_flip", [False, True], ids=["single scale", "ms+flip"])
def test_label_maps_are_those_of_the_evaluation(root: Path, images: Path, out: Path, ms_flip: bool) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out, ms_flip=ms_flip)
    model, inference = find_model(root, "tiny/0").load(), BENCHMARK.inference
    protocol = {"p": inference.ms_flip if ms_flip else inference.single_scale}
    with torch.inference_mode():
        expected = predict(model, transform_for_test(None)(scene())[None], protocol, SIZE)["p"][0].numpy()
    found = labels(out / "labels" / "a.png.png")
    assert (found == expected).mean() > 0.999
    assert len(np.unique(found)) > 1


def test_a_label_map_is_an_indexed_png_in_the_datasets_colours(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out)
    with Image.open(out / "labels" / "a.png.png") as image:
        assert image.mode == "P"
        assert np.array(image.convert("RGB"))[0, 0].tolist() == list(DIGITS.palette[np.array(image)[0, 0]])


def test_an_overlay_is_half_picture_half_colours(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out, overlay=True)
    found = labels(out / "overlays" / "a.png.png").astype(int)
    colours = np.array(DIGITS.palette)[labels(out / "labels" / "a.png.png")]
    assert np.abs(found - (scene() / 2 + colours / 2)).max() <= 1


@pytest.mark.parametrize("ms_flip", [False, True], ids=["mean logits", "mean probabilities"])
def test_probabilities_sum_to_one_and_favour_the_label(root: Path, images: Path, out: Path, ms_flip: bool) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out, probabilities=True, ms_flip=ms_flip)
    found = np.load(out / "probabilities" / "a.png.npy")
    assert (found.shape, found.dtype) == ((len(DIGITS.classes), *SIZE), np.float16)
    np.testing.assert_allclose(found.astype(np.float32).sum(axis=0), 1, atol=5e-3)
    chosen = np.take_along_axis(found, labels(out / "labels" / "a.png.png")[None], axis=0)
    assert (chosen == found.max(axis=0)).all()


def test_a_batch_gives_the_label_maps_of_single_pictures(root: Path, images: Path, tmp_path: Path) -> None:
    for i in range(3):
        write(images / f"{i}.png", scene(i, SIZE if i < 2 else (30, 30)))
    for batch in (1, 8):
        predict_folder(root, "tiny/0", images, tmp_path / str(batch), batch=batch)
    for name in ("0", "1", "2"):
        one, together = (labels(tmp_path / batch / "labels" / f"{name}.png.png") for batch in ("1", "8"))
        assert (one == together).mean() > 0.999


def test_windows_slide_the_training_crop_in_place_of_the_whole_picture() -> None:
    protocol = chosen_protocol(BENCHMARK, ms_flip=True, windows=True)
    assert (protocol.mode, protocol.crop, protocol.stride) == ("slide", (32, 32), (21, 21))
    assert (protocol.scales, protocol.flip) == (BENCHMARK.inference.ms_flip.scales, True)


def test_windows_cover_a_picture_that_is_larger_than_the_crop(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png", scene(size=(70, 90)))
    predict_folder(root, "tiny/0", images, out, windows=True, probabilities=True)
    np.testing.assert_allclose(np.load(out / "probabilities" / "a.png.npy").astype(np.float32).sum(0), 1, atol=5e-3)


# --- what goes in -----------------------------------------------------------------------------------------------------


def save_grey(path: Path) -> NDArray[np.uint8]:
    grey = scene()[..., 0]
    Image.fromarray(grey).save(path)
    return np.repeat(grey[..., None], 3, axis=2)


def save_with_alpha(path: Path) -> NDArray[np.uint8]:
    Image.fromarray(np.dstack([scene(), scene()[..., :1]])).save(path)
    return scene()


def save_indexed(path: Path) -> NDArray[np.uint8]:
    indexed = Image.fromarray(scene()).quantize(16)
    indexed.save(path)
    return np.array(indexed.convert("RGB"))


def save_16_bits(path: Path) -> NDArray[np.uint8]:
    assert cv2.imwrite(str(path), scene()[..., ::-1].astype(np.uint16) * 257)
    return scene()


def save_16_bit_grey(path: Path) -> NDArray[np.uint8]:
    assert cv2.imwrite(str(path), scene()[..., 0].astype(np.uint16) * 257)
    return np.repeat(scene()[..., :1], 3, axis=2)


@pytest.mark.parametrize("save", [save_grey, save_with_alpha, save_indexed, save_16_bits, save_16_bit_grey])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path: Path, save, ending: str) -> None:
    expected = save(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{ending}"), expected)


def test_a_jpeg_has_the_pixels_that_evaluation_sees(images: Path) -> None:
    path = write(images / "a.jpg")
    np.testing.assert_array_equal(read_picture(path), read_image(path))


def test_a_picture_turned_by_its_exif_data_is_predicted_upright(root: Path, images: Path, out: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(scene()).save(images / "a.jpg", exif=exif)
    predict_folder(root, "tiny/0", images, out)
    assert labels(out / "labels" / "a.jpg.png").shape == SIZE[::-1]


def test_numbers_that_are_no_intensities_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "depth.tif"), scene()[..., 0].astype(np.float32))
    with pytest.raises(PipelineError, match="floating-point numbers; convert"):
        read_picture(tmp_path / "depth.tif")


def test_a_single_pixel_is_a_picture(root: Path, images: Path, out: Path) -> None:
    write(images / "dot.png", scene(size=(1, 1)))
    predict_folder(root, "tiny/0", images, out)
    assert labels(out / "labels" / "dot.png.png").shape == (1, 1)


def test_a_picture_too_small_for_a_scale_is_reported(root: Path, images: Path, out: Path) -> None:
    write(images / "dot.png", scene(size=(1, 1)))
    with pytest.raises(PipelineError, match=r"dot\.png: 1x1 pixels are too few for scale 0\.5"):
        predict_folder(root, "tiny/0", images, out, ms_flip=True)


def test_equal_names_do_not_meet(root: Path, images: Path, out: Path) -> None:
    for name in ("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/a.PNG"):
        write(images / name)
    predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == ["a.jpg.png", "a.png.png", "sub/a.jpg.png", "sub/deeper/a.PNG.png"]


def test_one_file_may_be_named(root: Path, images: Path, out: Path) -> None:
    predict_folder(root, "tiny/0", write(images / "a.png"), out)
    assert files(out / "labels") == ["a.png.png"]


def test_other_files_are_counted_and_hidden_ones_ignored(
    root: Path, images: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(images / "a.png")
    write(images / ".thumbnails" / "a.png")
    (images / "notes.txt").write_text("no picture")
    predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == ["a.png.png"]
    assert "left out by their endings: 1 .txt" in capsys.readouterr().out


def test_a_folder_without_pictures_is_an_error(root: Path, images: Path, out: Path) -> None:
    with pytest.raises(PipelineError, match=r"holds no picture; looked for files ending in \.jpg"):
        predict_folder(root, "tiny/0", images, out)


# --- when something goes wrong ----------------------------------------------------------------------------------------


def test_broken_files_are_named_at_the_end_and_the_rest_is_done(
    root: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.png", "c.jpg"):
        write(images / name)
    for name in ("a.jpg", "b.png"):
        path = images / name
        path.write_bytes(path.read_bytes()[:-40])
    (images / "empty.png").touch()
    monkeypatch.setattr(commands, "ROOT", root)
    with pytest.raises(SystemExit) as stopped:
        commands.main(["predict", "--model", "tiny/0", "--images", str(images), "--out", str(out)])
    assert str(stopped.value).startswith("error: 3 of 4 pictures could not be predicted")
    assert all(name in str(stopped.value) for name in ("a.jpg", "b.png", "empty.png"))
    assert files(out / "labels") == ["c.jpg.png"]


def test_a_second_run_does_what_is_missing_or_older_than_its_picture(
    root: Path, images: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(images / name)
    predict_folder(root, "tiny/0", images, out)
    (out / "labels" / "a.png.png").unlink()
    later = (out / "labels" / "b.png.png").stat().st_mtime + 10
    os.utime(images / "b.png", (later, later))
    predict_folder(root, "tiny/0", images, out)
    assert "2 predicted, 1 were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "ms_flip", "key"), [("tiny/1", False, "weights_sha256"), ("tiny/0", True, "protocol")]
)
def test_a_folder_holds_the_output_of_one_model_and_protocol(
    root: Path, images: Path, out: Path, model: str, ms_flip: bool, key: str
) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out)
    with pytest.raises(PipelineError, match=f"made with another .*{key}"):
        predict_folder(root, model, images, out, ms_flip=ms_flip)


@pytest.mark.parametrize(("pictures", "outputs"), [("x", "x"), ("x", "x/out"), ("x/labels", "x")])
def test_pictures_and_outputs_must_lie_apart(root: Path, tmp_path: Path, pictures: str, outputs: str) -> None:
    write(tmp_path / pictures / "a.png")
    with pytest.raises(PipelineError, match="lie in one another"):
        predict_folder(root, "tiny/0", tmp_path / pictures, tmp_path / outputs)


def test_a_device_that_is_not_there_names_the_option(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png")
    with pytest.raises(PipelineError, match="--device: 'gpu' is no device"):
        predict_folder(root, "tiny/0", images, out, device="gpu")
