"""What decoders keep to themselves about a picture: that it is damaged, has more frames, that they turned it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import PipelineError, first_line

_UPRIGHT, _ORIENTATION = 1, 0x0112  # EXIF
_BROKEN_EXIF = (SyntaxError, ValueError, TypeError, KeyError, struct.error)  # OpenCV ignores such a block
# In what libjpeg says of a whole file: mere formalities, and kinds that simplejpeg does not read (12 bits, arithmetic
# coding, rare subsampling, colours of an unusual order). All else means wrong pixels, even where decoders go on.
_HARMLESS = (
    *("unknown JFIF revision", "Unknown Adobe color transform", "Invalid SOS parameters for sequential JPEG"),
    *("Unsupported JPEG data precision", "arithmetic coding is not", "Could not determine", "Unsupported color"),
)


def jpeg_damage(data: bytes) -> str | None:
    """libjpeg's first error or warning about wrong pixels, with which OpenCV and PIL go on.

    None if there is none, not a JPEG, or one that simplejpeg does not support.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY")
    except ValueError as error:
        if not any(harmless in str(error) for harmless in _HARMLESS):
            return str(error)
    return None


def require_one_frame(file: Path) -> None:
    """Raise PipelineError for a picture of several frames, of which decoders take the first."""
    try:
        with Image.open(file) as opened:
            frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)  # MPO: one in two sizes
    except UnidentifiedImageError:
        return
    except Exception as error:  # a damaged list of frames raises OSError, TypeError, SyntaxError, ...
        raise PipelineError(f"{file}: cannot be decoded ({first_line(error)})") from None
    if frames > 1:
        raise PipelineError(f"{file}: {frames} frames; save the one that counts as a separate picture")


def upright(opened: Image.Image) -> Image.Image:
    """The decoded picture, turned by its EXIF tag alone as OpenCV turns it: PIL follows XMP data too."""
    opened.load()  # a PNG may have its XMP data after the pixels
    return opened if _orientation(opened) == _UPRIGHT else ImageOps.exif_transpose(opened)


def _orientation(opened: Image.Image) -> int:
    for key in ("xmp", "XML:com.adobe.xmp"):
        opened.info.pop(key, None)
    try:
        tag = opened.getexif().get(_ORIENTATION, _UPRIGHT)
    except _BROKEN_EXIF:
        return _UPRIGHT
    return tag if tag in range(1, 9) else _UPRIGHT


def exif_orientation(data: bytes) -> int:
    """1 (upright) to 8: how readers have to turn or mirror the picture; 1 without valid EXIF data."""
    if data.startswith(b"\x89PNG") and b"eXIf" not in data:  # PIL would decode the whole picture to find out
        return _UPRIGHT
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return _orientation(opened)
    except UnidentifiedImageError:  # formats that PIL does not know, such as MATLAB's, have none
        return _UPRIGHT
