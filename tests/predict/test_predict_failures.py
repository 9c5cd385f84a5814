"""Predicting when a picture, the memory, the disk or an argument is at fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.pictures import BENCHMARK, files, scene, write
from helpers.project import ROOT
from helpers.trained_run import write_run
from numpy.typing import NDArray

from pipeline import __main__ as commands
from pipeline.config.schema import EncoderConfig
from pipeline.errors import PipelineError
from pipeline.export.export import export_model
from pipeline.predict import folder
from pipeline.predict.folder import predict_folder
from pipeline.predict.network import lacks_memory, predict_batch


def test_broken_files_are_listed_at_the_end_and_the_rest_is_predicted(
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


def failing_for_wide_pictures(fail: Callable[[], object]) -> Callable[..., NDArray[np.uint8]]:
    """`predict_batch`, which first calls `fail` when its pictures are 60 pixels wide."""

    def predicted(model: torch.nn.Module, batch: torch.Tensor, *others: object) -> NDArray[np.uint8]:
        if batch.shape[-1] == 60:
            fail()
        return predict_batch(model, batch, *others)

    return predicted


def test_running_out_of_memory_skips_one_picture(
    root: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(images / "a.png", scene(size=(50, 60)))
    write(images / "b.png")
    monkeypatch.setattr(folder, "predict_batch", failing_for_wide_pictures(lambda: torch.empty(2**50)))
    with pytest.raises(PipelineError, match=r"1 of 2 .*\n.*/a\.png: not enough memory; use a smaller --batch,"):
        predict_folder(root, "tiny/0", images, out, device="cpu")
    assert files(out / "labels") == ["b.png.png"]


def test_pictures_of_a_size_that_the_network_cannot_read_are_listed(tmp_path: Path, images: Path, out: Path) -> None:
    encoder = EncoderConfig(name="tu-hrnet_w18_small")  # reads multiples of 32
    inference = BENCHMARK.inference.model_copy(update={"resize": None})
    write_run(tmp_path, BENCHMARK.model_copy(update={"encoder": encoder, "inference": inference}))
    write(images / "a.png", scene(size=(64, 96)))
    write(images / "b.png", scene(size=(40, 52)))
    with pytest.raises(PipelineError, match=r"1 of 2 .*\n.*/b\.png: .*cannot read the picture; try --windows"):
        predict_folder(tmp_path, "tiny/0", images, out, device="cpu")
    assert files(out / "labels") == ["a.png.png"]


def test_other_errors_of_the_network_keep_their_traceback(
    root: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(images / "a.png", scene(size=(50, 60)))
    monkeypatch.setattr(folder, "predict_batch", failing_for_wide_pictures(lambda: torch.ones(2) @ torch.ones(3)))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        predict_folder(root, "tiny/0", images, out)


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(2**50),
        lambda: np.empty(2**50),
        lambda: cv2.resize(np.zeros((1, 1, 3), np.uint8), (2**24, 2**24)),
    ],
    ids=["torch", "numpy", "opencv"],
)
def test_memory_errors_of_every_library_are_recognised(fail: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:
        fail()
    assert lacks_memory(caught.value)


def test_only_names_too_long_for_an_output_are_refused(root: Path, images: Path, out: Path) -> None:
    longest = f"{'画' * 82}.png"  # 250 bytes of 255; its outputs add another four
    write(images / longest)
    write(images / f"{'画' * 83}.png")
    for _ in range(2):  # the second time finds the folder of the outputs
        with pytest.raises(PipelineError, match=r"1 of 2 .*\n.*画\.png: its name is too long .*; rename the picture"):
            predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == [f"{longest}.png"]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a private mount namespace",
)
def test_a_full_disk_is_reported_without_a_traceback(root: Path, images: Path, tmp_path: Path) -> None:
    export_model(root, "tiny/0", tmp_path / "model", (), None)
    write(images / "a.png", scene(size=(400, 400)))
    (tmp_path / "full").mkdir()
    script = f"""
mount -t tmpfs -o size=1m tmpfs {tmp_path}/full
cd {ROOT} && {sys.executable} -m pipeline predict --probabilities --device cpu \\
    --model {tmp_path}/model/tiny-seed0.safetensors --images {images} --out {tmp_path}/full
echo "status $?"
cd {tmp_path}/full && find . -type f
"""
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], text=True, capture_output=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/full/probabilities/a.png.npy: No space left on device; free some space")
    assert done.stdout.splitlines() == ["status 1", "./prediction.json"]


@pytest.mark.parametrize(("pictures", "outputs"), [("x", "x"), ("x", "x/out"), ("x/labels", "x")])
def test_pictures_and_outputs_need_separate_folders(root: Path, tmp_path: Path, pictures: str, outputs: str) -> None:
    write(tmp_path / pictures / "a.png")
    with pytest.raises(PipelineError, match="contain each other"):
        predict_folder(root, "tiny/0", tmp_path / pictures, tmp_path / outputs)


def test_an_unknown_device_is_reported_with_its_option(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png")
    with pytest.raises(PipelineError, match="--device: unknown device 'gpu'"):
        predict_folder(root, "tiny/0", images, out, device="gpu")
