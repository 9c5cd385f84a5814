"""What decoders keep to themselves about a picture: that it is damaged, that they turned it."""

from __future__ import annotations

import io

import simplejpeg
from PIL import Image, UnidentifiedImageError

_UPRIGHT, _ORIENTATION = 1, 0x0112  # EXIF
# How libjpeg's warnings about lost pixels begin; those about mere formalities begin otherwise.
_LOSS = ("Corrupt JPEG data", "Premature end of JPEG file")


def jpeg_damage(data: bytes) -> str | None:
    """libjpeg's warning about lost pixels, with which OpenCV and PIL go on; None if there is none, or not a JPEG."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY")
    except ValueError as error:
        if str(error).startswith(_LOSS):
            return str(error)
    return None


def exif_orientation(data: bytes) -> int:
    """1 (upright) to 8: how readers have to turn or mirror the picture; 1 without EXIF data."""
    if data.startswith(b"\x89PNG") and b"eXIf" not in data:  # PIL would decode the whole picture to find out
        return _UPRIGHT
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return int(opened.getexif().get(_ORIENTATION, _UPRIGHT))
    except UnidentifiedImageError:  # formats that PIL does not know, such as MATLAB's, have none
        return _UPRIGHT
