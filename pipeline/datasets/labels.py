"""Raw label files to train ids."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec
from pipeline.errors import PipelineError
from pipeline.files.pictures import require_one_frame, upright

# What scipy raises for a truncated file or another format: it checks little before it reads.
_BROKEN_MAT = (OSError, EOFError, ValueError, TypeError, IndexError, NotImplementedError, zlib.error)
_MAX_COLOURS = 5  # named in an error
_LOSSLESS, _LOSSY = ("PNG", "TIFF", "BMP", "GIF", "PPM"), ("jpeg", "tiff_jpeg", "webp")  # formats; compressions of TIFF
_STRETCHING = ("ppm", "ppm_plain")  # PIL's decoders of PGM files whose highest value may be below 255
_AS_STORED = re.compile(r"(L|P|RGB|BGR)[AX]?|[PI];.*")  # PIL's names of 8 bits, of palettes, and of 16 and 32 bits
_SAMPLE_FORMAT = 339  # TIFF; 1 is unsigned


def train_ids(spec: DatasetSpec, path: Path) -> NDArray[np.uint8]:
    """The label file `path` as train ids, uint8 (H, W), 255 = ignore.

    Raises PipelineError if it is not a single-channel map (or, with `label_colours`, a picture in colours), or has a
    value that the dataset does not define.
    """
    if spec.label_colours is not None:
        raw = _read_colours(path, spec.label_colours)  # (H, W)
    else:
        raw = read_raw(path, spec.label_variable)  # (H, W)
    known = spec.raw_values()
    stray = [int(value) for value in np.unique(raw) if int(value) not in known]
    if stray:
        hint = f" ({spec.stray_label_hint})" if spec.stray_label_hint else ""
        runs = np.split(np.array(sorted(known)), np.flatnonzero(np.diff(sorted(known)) > 1) + 1)  # 0, 1, 2 and 255
        valid = ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
        raise PipelineError(f"{path}: label values {stray} are not among the dataset's {valid}{hint}")
    lowest = min(known)  # may be negative
    table = np.full(max(known) - lowest + 1, IGNORE_INDEX, np.uint8)
    table[np.array(list(known)) - lowest] = list(known.values())
    return table[raw.astype(np.intp) - lowest]  # (H, W)


def read_raw(path: Path, variable: str = "S") -> NDArray[np.integer[Any]]:
    """The values (H, W) of a label file, a picture or the variable of a .mat.

    Raises PipelineError if not one integer per pixel.
    """
    if path.suffix.lower() == ".mat":
        variables = read_mat(path, variable)
        if not variables:
            raise PipelineError(f"{path}: no variable {variable} in it, which should be the label map")
        raw = variables[variable]
    else:
        raw = np.asarray(_opened(path))  # PIL keeps palette indices, which OpenCV would turn into colours
    if raw.ndim != 2 or raw.dtype.kind not in "iub":
        hint = "; if its colours are the classes, declare `label_colours`" if raw.ndim == 3 else ""
        raise PipelineError(f"{path}: expected one integer channel, found shape {raw.shape} of {raw.dtype}{hint}")
    return raw


def _opened(path: Path) -> Image.Image:
    """Decoded and upright, as OpenCV reads the picture that belongs to it."""
    try:
        with Image.open(path) as stream:
            require_one_frame(path)
            _require_as_stored(path, stream)
            return upright(stream)
    except (OSError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG
        raise PipelineError(f"{path}: cannot be decoded as a label image ({error})") from error


def _read_colours(path: Path, colours: Mapping[tuple[int, int, int], int]) -> NDArray[np.integer[Any]]:
    """The raw values (H, W) of a label in colours. Raises PipelineError for other colours, with their pixels."""
    picture = _opened(path)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise PipelineError(f"{path}: expected a picture in colours (`label_colours`), found PIL's mode {picture.mode}")
    # Red, green and blue as one number. (H, W)
    codes = np.asarray(picture.convert("RGB")).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    present, inverse, pixels = np.unique(codes, return_inverse=True, return_counts=True)
    values = {(red << 16) + (green << 8) + blue: value for (red, green, blue), value in colours.items()}
    if stray := {
        code: count for code, count in zip(present.tolist(), pixels.tolist(), strict=True) if code not in values
    }:
        shown = sorted(stray, key=lambda code: -stray[code])[:_MAX_COLOURS]
        listed = ", ".join(f"({code >> 16}, {code >> 8 & 255}, {code & 255}) {stray[code]} pixels" for code in shown)
        more = f" and {len(stray) - len(shown)} more" if len(stray) > len(shown) else ""
        raise PipelineError(f"{path}: colours that are not in `label_colours`: {listed}{more}")
    return np.array([values[code] for code in present.tolist()])[inverse].reshape(codes.shape)


def _require_as_stored(path: Path, opened: ImageFile.ImageFile) -> None:
    """Raise PipelineError for a file whose values decoders change: few bits are stretched, others inverted or cut."""
    compression = opened.info.get("compression")  # of TIFF
    if opened.format not in _LOSSLESS or compression in _LOSSY:
        found = f"{opened.format}, compression {compression}" if compression in _LOSSY else opened.format
    else:
        codec, _, _, args = opened.tile[0]
        packing = args[0] if isinstance(args, tuple) else args
        if not isinstance(packing, str):  # GIF has but one
            packing = opened.mode
        signed_byte = opened.mode == "L" and getattr(opened, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,)) != (1,)
        if _AS_STORED.fullmatch(packing) and codec not in _STRETCHING and not signed_byte:
            return
        found = f"{opened.format}, packed as {packing}{' with sign' if signed_byte else ''}"
    raise PipelineError(
        f"{path}: {found}: its label values may change in reading; save it as a PNG with 8 or 16 bits of grey"
        " (8 bits per channel if its colours are the classes)"
    )


def read_mat(path: Path, *names: str) -> Mapping[str, NDArray[Any]]:
    """Those of the variables `names` that a MATLAB file (version 4 to 7) has. Raises PipelineError for another file."""
    import scipy.io  # only two datasets have such files
    from scipy.io.matlab import MatReadError

    try:
        found = scipy.io.loadmat(path, variable_names=names)
    except (*_BROKEN_MAT, MatReadError) as error:
        raise PipelineError(f"{path}: cannot be read as a MATLAB file ({error})") from error
    return {name: found[name] for name in names if name in found}
