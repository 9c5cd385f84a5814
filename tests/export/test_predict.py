"""Predicting one's own pictures: every kind of file that people have, and the files that come out."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.model_benchmarks import SMALL_ENCODER
from helpers.project import ROOT, TINY
from helpers.trained_run import write_run
from numpy.typing import NDArray
from PIL import Image

from pipeline import __main__ as commands
from pipeline.config import Benchmark
from pipeline.config.parse import parse
from pipeline.datasets import get_dataset
from pipeline.datasets.prepared import read_image
from pipeline.datasets.transforms import test_transform as transform_for_test
from pipeline.errors import PipelineError
from pipeline.evaluation.inference import predict
from pipeline.export.export import export_model
from pipeline.export.source import find_model
from pipeline.files.storage import new_file, replacing
from pipeline.predict import run
from pipeline.predict.network import chosen_protocol, lacks_memory, predict_batch
from pipeline.predict.outputs import new_array
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
    assert "skipped by their endings: 1 .txt" in capsys.readouterr().out


def test_a_folder_without_pictures_is_an_error(root: Path, images: Path, out: Path) -> None:
    with pytest.raises(PipelineError, match=r"no pictures found; looked for files ending in \.jpg"):
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


def bmp_of_3_terabytes() -> bytes:
    """A header for 1000000x1000000 pixels, and none of them."""
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 10**6, 10**6, 1, 24, *[0] * 6)


def tiff_of_a_terabyte(compression: int) -> bytes:
    """One grey strip of 1000000x1000000 pixels and no bytes. compression: 1 is none, 5 LZW."""
    entries = [(256, 10**6), (257, 10**6), (258, 8), (259, compression), (262, 1), (273, 8), (278, 10**6), (279, 0)]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.bmp", bmp_of_3_terabytes(), "uncompressed, in 54 bytes; it is damaged or incomplete"),
        ("a.tif", tiff_of_a_terabyte(1), "uncompressed, in 110 bytes; it is damaged or incomplete"),
        ("a.tif", tiff_of_a_terabyte(5), r"6519\.3 GiB to decode, but .* are free; if it is not damaged, cut it into"),
    ],
    ids=["bmp", "tiff", "lzw"],
)
def test_a_picture_that_announces_absurdly_many_pixels_is_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=rf"/{name}: announces 1000000x1000000 pixels, {problem}"):
        read_picture(tmp_path / name)


def test_damaged_exif_data_are_told_like_any_damage(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2  # to be turned by a quarter; resolution in inches, a 16-bit number
    damaged = exif.tobytes().replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x07")  # now of no type
    Image.fromarray(scene()).save(tmp_path / "a.jpg", exif=damaged)
    with pytest.raises(PipelineError, match=r"/a\.jpg: cannot be decoded \(required argument is not an integer\)"):
        read_picture(tmp_path / "a.jpg")


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from pipeline.errors import told_in_one_line
from pipeline.predict.pictures import read_picture
room = psutil.Process().memory_info().vms + 2**24
resource.setrlimit(resource.RLIMIT_AS, (room, room))
with told_in_one_line():
    read_picture(Path(sys.argv[1]))
"""


def test_a_picture_that_leaves_no_memory_while_it_is_decoded_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.zeros((4000, 4000, 3), np.uint8))  # 64 MB as PIL keeps it
    # In a new process: one that has worked before may have as much left over from what it gave back.
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: not enough memory to decode it; if it is not damaged, cut it into")


def failing_for_wide_pictures(fail: Callable[[], object]) -> Callable[..., NDArray[np.uint8]]:
    """`predict_batch`, which first calls `fail` when its pictures are 60 pixels wide."""

    def predicted(model: torch.nn.Module, batch: torch.Tensor, *others: object) -> NDArray[np.uint8]:
        if batch.shape[-1] == 60:
            fail()
        return predict_batch(model, batch, *others)

    return predicted


def test_memory_that_runs_out_on_the_cpu_costs_one_picture(
    root: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(images / "a.png", scene(size=(50, 60)))
    write(images / "b.png")
    monkeypatch.setattr(run, "predict_batch", failing_for_wide_pictures(lambda: torch.empty(2**50)))
    with pytest.raises(
        PipelineError, match=r"1 of 2 .*\n.*/a\.png: 50x60: not enough memory; use a smaller --batch or"
    ):
        predict_folder(root, "tiny/0", images, out, device="cpu")
    assert files(out / "labels") == ["b.png.png"]


def test_a_mistake_in_the_network_keeps_its_traceback(
    root: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(images / "a.png", scene(size=(50, 60)))
    monkeypatch.setattr(run, "predict_batch", failing_for_wide_pictures(lambda: torch.ones(2) @ torch.ones(3)))
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
def test_every_librarys_lack_of_memory_is_recognised(fail: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:
        fail()
    assert lacks_memory(caught.value)


def test_a_name_may_be_as_long_as_the_file_system_allows(root: Path, images: Path, out: Path) -> None:
    name = f"{'画' * 82}.png"  # 250 bytes of 255; its outputs add another four
    write(images / name)
    predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == [f"{name}.png"]


def test_names_too_long_for_an_output_are_told_and_the_rest_is_done(root: Path, images: Path, out: Path) -> None:
    write(images / f"{'画' * 83}.png")
    write(images / "a.png")
    for _ in range(2):  # the second time finds the folder of the outputs
        with pytest.raises(PipelineError, match=r"1 of 2 .*\n.*画\.png: its name is too long .*; rename the picture"):
            predict_folder(root, "tiny/0", images, out)
    assert files(out / "labels") == ["a.png.png"]


def test_files_whose_long_names_start_alike_are_written_side_by_side(tmp_path: Path) -> None:
    paths = [tmp_path / f"{'n' * 250}{i}.png" for i in range(2)]
    with replacing(paths[0]) as one, replacing(paths[1]) as two:
        one.write_bytes(b"1")
        two.write_bytes(b"2")
        assert all(".part" in path.name for path in tmp_path.iterdir())
    assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    with new_file(paths[0]) as first, new_file(paths[1]) as second:
        first.write(b"3")
        second.write(b"4")
    assert [path.read_bytes() for path in paths] == [b"3", b"4"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="macOS cannot reserve blocks")
def test_probabilities_have_their_blocks_before_they_are_mapped(tmp_path: Path) -> None:
    with new_array(tmp_path / "a.npy", (5, 400, 400)):
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.stat().st_blocks * 512 >= 5 * 400 * 400 * 2


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a mount namespace of its own",
)
def test_probabilities_on_a_full_disk_are_told_in_one_line(root: Path, images: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("pictures", "outputs"), [("x", "x"), ("x", "x/out"), ("x/labels", "x")])
def test_pictures_and_outputs_must_lie_apart(root: Path, tmp_path: Path, pictures: str, outputs: str) -> None:
    write(tmp_path / pictures / "a.png")
    with pytest.raises(PipelineError, match="contain each other"):
        predict_folder(root, "tiny/0", tmp_path / pictures, tmp_path / outputs)


def test_a_device_that_is_not_there_names_the_option(root: Path, images: Path, out: Path) -> None:
    write(images / "a.png")
    with pytest.raises(PipelineError, match="--device: 'gpu' is no device"):
        predict_folder(root, "tiny/0", images, out, device="gpu")
