"""Find and read pictures: any size, 8 or 16 bits, grey, with alpha, rotated by EXIF data, or broken."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.errors import PipelineError, first_line
from pipeline.files.pictures import jpeg_damage, require_one_frame, upright
from pipeline.runtime.device import available_cores

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

# PIL's limit is too low for aerial photographs; `_require_plausible` checks against the free memory instead.
Image.MAX_IMAGE_PIXELS = None

_AHEAD = 4  # most pictures to decode before they are needed
_DECODING = 7  # bytes of memory per pixel: 4 in PIL, 3 in the array
_NO_MEMORY = "if it is not damaged, cut it into smaller pictures, or use a machine with more memory"


@dataclass(frozen=True)
class Picture:
    """A file, and its path below the given folder, which also names its outputs."""

    file: Path
    name: PurePosixPath


ReadPicture = tuple[Picture, NDArray[np.uint8] | PipelineError]


def find_pictures(images: Path) -> tuple[list[Picture], Counter[str]]:
    """The pictures in `images` (a file or a folder with sub-folders) by name; the number of files per other ending.

    Hidden files and folders are ignored. Raises PipelineError when there is no picture.
    """
    if images.is_file():
        return [Picture(images, PurePosixPath(images.name))], Counter()
    if not images.is_dir():
        raise PipelineError(f"--images {images}: no such file or folder")
    pictures, others = [], Counter[str]()
    for file in sorted(images.rglob("*")):
        name = PurePosixPath(file.relative_to(images).as_posix())
        if not file.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if file.suffix.lower() in ENDINGS:
            pictures.append(Picture(file, name))
        else:
            others[file.suffix.lower() or "no ending"] += 1
    if not pictures:
        raise PipelineError(f"--images {images}: no pictures found; looked for files ending in {', '.join(ENDINGS)}")
    return pictures, others


def read_picture(file: Path) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3), upright. Grey becomes three equal channels, alpha is dropped, 16 bits lose the lower 8.

    Raises PipelineError for a file that is damaged, incomplete, too large for the free memory, of several frames, or
    neither 8 nor 16 bits per channel.
    """
    try:
        image = _decoded(file)
        if image.mode.startswith("I;16"):
            upper = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(upper[..., None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise PipelineError(f"{file}: 32-bit or floating-point numbers; convert it to 8 or 16 bits per channel")
        return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise PipelineError(f"{file}: not enough memory to decode it; {_NO_MEMORY}") from None


def _decoded(file: Path) -> Image.Image:
    # Not OpenCV, which reads the prepared data: its 5.0 garbles 16-bit TIFF and multiplies TIFF colours with alpha.
    try:
        with Image.open(file) as opened:
            _require_plausible(file, opened)
            if opened.format in ("JPEG", "MPO") and (damage := jpeg_damage(file.read_bytes())):
                raise PipelineError(f"{file}: {damage}; most of it may be wrong")
            require_one_frame(file)
            return upright(opened)
    except (PipelineError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PipelineError(f"{file}: not a picture, or in a format that cannot be decoded") from None
    except Exception as error:  # damage raises OSError, SyntaxError, TypeError, struct.error, ...
        raise PipelineError(f"{file}: cannot be decoded ({first_line(error)})") from None


def _require_plausible(file: Path, opened: Image.Image) -> None:
    """Raise PipelineError when the header announces more pixels than the file or the free memory can hold.

    Checked before decoding, because PIL fills all the memory at once and the system may then kill the process.
    """
    width, height = opened.size
    announced, size = f"{file}: announces {width}x{height} pixels", file.stat().st_size
    tiles = opened.tile if isinstance(opened, ImageFile.ImageFile) else []
    if tiles and all(tile.codec_name == "raw" for tile in tiles) and width * height > 8 * size:
        raise PipelineError(f"{announced}, uncompressed, in {size} bytes; it is damaged or incomplete")
    needed, free = width * height * _DECODING, psutil.virtual_memory().available + psutil.swap_memory().free
    if needed > free:
        sizes = f"{needed / 2**30:.1f} GiB to decode, but {free / 2**30:.1f} GiB of memory are free"
        raise PipelineError(f"{announced}, {sizes}; {_NO_MEMORY}")


def _read(picture: Picture) -> ReadPicture:
    try:
        return picture, read_picture(picture.file)
    except PipelineError as error:
        return picture, error


def read_ahead(pictures: Sequence[Picture]) -> Iterator[ReadPicture]:
    """Every picture in order with its pixels or its error; a few are decoded while others are predicted."""
    threads = min(available_cores(), _AHEAD)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[ReadPicture]] = deque()
        for picture in pictures:
            waiting.append(pool.submit(_read, picture))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
