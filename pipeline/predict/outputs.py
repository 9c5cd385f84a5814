"""The output files of a prediction: label maps and, on request, overlays and probabilities.

    labels/NAME.png          indexed PNG, values are class numbers, colours the dataset's palette
    overlays/NAME.png        the picture under half-transparent colours
    probabilities/NAME.npy   (K, H, W) float16; np.load(path, mmap_mode="r") reads a part of it

NAME is the picture's path below its folder with its ending, so that a.jpg and a.png do not collide. A file appears
under its name when it is complete.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.spec import colourise
from pipeline.errors import PipelineError
from pipeline.files.storage import replacing
from pipeline.predict.pictures import Picture

Kind = Literal["labels", "overlays", "probabilities"]

ENDINGS: dict[Kind, str] = {"labels": ".png", "overlays": ".png", "probabilities": ".npy"}


@dataclass(frozen=True)
class Outputs:
    """The output folder and which kinds of files to write there. palette: RGB per class."""

    folder: Path
    kinds: Sequence[Kind]
    palette: Sequence[tuple[int, int, int]]

    def path(self, kind: Kind, picture: Picture) -> Path:
        """The file of one output of a picture."""
        return self.folder / kind / f"{picture.name}{ENDINGS[kind]}"

    def are_current(self, picture: Picture) -> bool:
        """Whether all outputs exist and none is older than the picture; makes their folders.

        Raises PipelineError when a name is too long: the file system's limit is only known by asking for such a file.
        """
        changed, current = picture.file.stat().st_mtime_ns, True
        for path in (self.path(kind, picture) for kind in self.kinds):
            written = None
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    written = path.stat().st_mtime_ns
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise PipelineError(f"its name is too long for its output {path}; rename the picture") from None
            current = current and written is not None and written >= changed
        return current

    def write(
        self,
        picture: Picture,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        probabilities: NDArray[np.float16] | None,
    ) -> None:
        """Write all outputs. pixels: RGB uint8 (H, W, 3); labels: (H, W) uint8; probabilities: (K, H, W)."""
        if probabilities is not None:
            with replacing(self.path("probabilities", picture)) as temporary, temporary.open("wb") as stream:
                # Not np.save, whose error on a full disk does not say so.
                values = np.ascontiguousarray(probabilities)
                npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(values))
                stream.write(values.data)
        indexed = Image.fromarray(labels)
        indexed.putpalette([channel for colour in self.palette for channel in colour])
        images: dict[Kind, Image.Image] = {"labels": indexed}
        if "overlays" in self.kinds:
            images["overlays"] = Image.fromarray(pixels // 2 + colourise(labels, self.palette) // 2)
        for kind, image in images.items():
            with replacing(self.path(kind, picture)) as temporary:
                image.save(temporary, format="PNG")
