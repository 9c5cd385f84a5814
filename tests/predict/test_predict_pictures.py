"""Reading pictures: every kind of file that people have, and damaged ones."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import SIZE, labels, scene, write
from helpers.project import ROOT
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.prepared import read_image
from pipeline.errors import PipelineError
from pipeline.predict.folder import predict_folder
from pipeline.predict.pictures import read_picture


def three(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


INDEXED = Image.fromarray(scene()).quantize(16)
BGR_16 = scene()[..., ::-1].astype(np.uint16) * 257


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (Image.fromarray(scene()[..., 0]), three(scene()[..., 0])),
        (Image.fromarray(np.dstack([scene(), scene()[..., :1]])), scene()),
        (INDEXED, np.array(INDEXED.convert("RGB"))),
        (BGR_16, scene()),
        (BGR_16[..., 2], three(scene()[..., 0])),
    ],
    ids=["grey", "alpha", "indexed", "16 bits", "16-bit grey"],
)
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path: Path, saved, expected, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if isinstance(saved, Image.Image):
        saved.save(path)
    else:
        cv2.imwrite(str(path), saved)
    np.testing.assert_array_equal(read_picture(path), expected)


def test_a_jpeg_has_the_pixels_that_evaluation_sees(images: Path) -> None:
    path = write(images / "a.jpg")
    np.testing.assert_array_equal(read_picture(path), read_image(path))


def test_a_picture_turned_by_its_exif_data_is_predicted_upright(root: Path, images: Path, out: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(scene()).save(images / "a.jpg", exif=exif)
    predict_folder(root, "tiny/0", images, out)
    assert labels(out / "labels" / "a.jpg.png").shape == SIZE[::-1]


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_a_moving_picture_is_refused(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 200)]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(PipelineError, match="2 frames; save the one that counts as a separate picture"):
        read_picture(tmp_path / f"a.{ending}")


def test_a_jpeg_that_lost_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 80).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + whole[1500:])
    with pytest.raises(PipelineError, match="Corrupt JPEG data"):
        read_picture(path)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "depth.tif"), scene()[..., 0].astype(np.float32))
    with pytest.raises(PipelineError, match="floating-point numbers; convert"):
        read_picture(tmp_path / "depth.tif")


def test_a_picture_too_small_for_a_scale_is_reported(root: Path, images: Path, out: Path) -> None:
    write(images / "dot.png", scene(size=(1, 1)))
    with pytest.raises(PipelineError, match=r"dot\.png: 1x1 pixels are too few for scale 0\.5"):
        predict_folder(root, "tiny/0", images, out / "ms", ms_flip=True)
    predict_folder(root, "tiny/0", images, out / "single")
    assert labels(out / "single" / "labels" / "dot.png.png").shape == (1, 1)


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


def test_damaged_exif_data_are_reported_as_damage(tmp_path: Path) -> None:
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
from pipeline.errors import report_user_errors
from pipeline.predict.pictures import read_picture
room = psutil.Process().memory_info().vms + 2**24
resource.setrlimit(resource.RLIMIT_AS, (room, room))
with report_user_errors():
    read_picture(Path(sys.argv[1]))
"""


def test_running_out_of_memory_while_decoding_names_the_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.zeros((4000, 4000, 3), np.uint8))  # 64 MB as PIL keeps it
    # In a new process: one that has worked before may have as much left over from what it gave back.
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {path}: not enough memory to decode it; if it is not damaged, cut it into")
