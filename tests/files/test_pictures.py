"""What libjpeg says of a JPEG: which of it means wrong pixels."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.files.pictures import jpeg_damage

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
WHOLE = cv2.imencode(".jpg", NOISE)[1].tobytes()
FRAME = WHOLE.index(b"\xff\xc0")  # its header: marker, length, bits (+ 4), height, width, channels, sampling (+ 11)


def replaced(at: int, new: bytes) -> bytes:
    return WHOLE[:at] + new + WHOLE[at + len(new) :]


def decoded(data: bytes) -> bool:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize("new", [b"\xff\x9c", b"\xff\xd8", b"\xff\xdb\0\x43\x09", b"\xff\xc0\0\x11", b"\xff\xc4\0\1"])
def test_a_jpeg_with_a_wrong_marker_among_its_pixels_is_damaged_though_opencv_decodes_it(new):
    data = replaced(2000, new)
    assert decoded(data)
    assert jpeg_damage(data)


def test_random_bytes_in_a_jpeg_that_libjpeg_complains_of_are_damage():
    rng = np.random.default_rng(1)
    missed = [at for at in range(1000, 4000, 100) if not jpeg_damage(replaced(at, rng.bytes(300)))]
    assert not missed


def cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(NOISE).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


UNUSUAL = {
    "whole": WHOLE,
    "CMYK": cmyk(),
    "rare subsampling": replaced(FRAME + 11, b"\x31"),
    "12 bits": replaced(FRAME + 4, b"\x0c"),
    "JFIF 9": WHOLE.replace(b"JFIF\0\1", b"JFIF\0\x09"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_jpeg_is_not_damaged(kind):
    assert jpeg_damage(UNUSUAL[kind]) is None
