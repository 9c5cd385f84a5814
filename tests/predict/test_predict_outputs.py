"""The files of a prediction: the evaluation's label maps, overlays, probabilities; names; a second run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import BENCHMARK, SIZE, files, labels, scene, write
from PIL import Image

from pipeline.datasets import get_dataset
from pipeline.datasets.transforms import EvalTransform
from pipeline.errors import PipelineError
from pipeline.evaluation.views import predict
from pipeline.export.source import find_model
from pipeline.predict.folder import predict_folder
from pipeline.predict.network import chosen_protocol

DIGITS = get_dataset("digits")


@pytest.mark.parametrize("ms_flip", [False, True], ids=["single scale", "ms+flip"])
def test_label_maps_are_those_of_the_evaluation(root: Path, images: Path, out: Path, ms_flip: bool) -> None:
    write(images / "a.png")
    predict_folder(root, "tiny/0", images, out, ms_flip=ms_flip)
    model, inference = find_model(root, "tiny/0").load(), BENCHMARK.inference
    protocol = {"p": inference.ms_flip if ms_flip else inference.single_scale}
    with torch.inference_mode():
        expected = predict(model, EvalTransform(None)(scene())[None], protocol, SIZE)["p"][0].numpy()
    found = labels(out / "labels" / "a.png.png")
    assert (found == expected).mean() > 0.999
    assert len(np.unique(found)) > 1


def test_one_picture_becomes_an_indexed_png_in_the_datasets_colours(root: Path, images: Path, out: Path) -> None:
    predict_folder(root, "tiny/0", write(images / "a.png"), out)
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


def test_windows_of_the_training_crop_cover_a_larger_picture(root: Path, images: Path, out: Path) -> None:
    protocol = chosen_protocol(BENCHMARK, ms_flip=True, windows=True)
    assert (protocol.mode, protocol.crop, protocol.stride) == ("slide", (32, 32), (21, 21))
    assert (protocol.scales, protocol.flip) == (BENCHMARK.inference.ms_flip.scales, True)
    write(images / "a.png", scene(size=(70, 90)))
    predict_folder(root, "tiny/0", images, out, windows=True, probabilities=True)
    np.testing.assert_allclose(np.load(out / "probabilities" / "a.png.npy").astype(np.float32).sum(0), 1, atol=5e-3)


def test_every_picture_has_its_output_other_files_are_counted_and_hidden_ones_ignored(
    root: Path, images: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/a.PNG", ".thumbnails/a.png"):
        write(images / name)
    (images / "notes.txt").write_text("no picture")
    predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == ["a.jpg.png", "a.png.png", "sub/a.jpg.png", "sub/deeper/a.PNG.png"]
    assert "skipped by their endings: 1 .txt" in capsys.readouterr().out


def test_a_folder_without_pictures_is_an_error(root: Path, images: Path, out: Path) -> None:
    with pytest.raises(PipelineError, match=r"no pictures found; looked for files ending in \.jpg"):
        predict_folder(root, "tiny/0", images, out)


def test_a_second_run_predicts_only_missing_or_outdated_outputs(
    root: Path, images: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(images / name)
    predict_folder(root, "tiny/0", images, out)
    (out / "labels" / "a.png.png").unlink()
    later = (out / "labels" / "b.png.png").stat().st_mtime + 10
    os.utime(images / "b.png", (later, later))
    predict_folder(root, "tiny/0", images, out)
    assert "2 predicted, 1 already present" in capsys.readouterr().out


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
