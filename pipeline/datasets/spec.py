"""What the pipeline needs to know about a dataset: one `DatasetSpec` per module of `pipeline.datasets.sources`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = 255  # label of pixels that are neither trained on nor evaluated
_IGNORED_COLOUR = (225, 227, 231)  # light grey


@dataclass(frozen=True)
class RawSample:
    """One image of the raw store. `id` is unique in its split and may contain `/`; `label` None: unlabelled."""

    id: str
    split: str
    image: Path
    label: Path | None

    @property
    def files(self) -> list[Path]:
        """The image and, if there is one, its label."""
        return [self.image] if self.label is None else [self.image, self.label]


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset: how it is fetched and listed, and what its labels mean.

    fetch(raw_dir, source) fills the raw store from `source`, a local folder or archive (None: the public address), and
    raises PipelineError with a remedy on failure. samples(raw_dir) lists the content of the store in any order,
    including files that should exist but do not, so that `download` can report them.
    """

    name: str
    classes: tuple[str, ...]  # train ids are positions in this tuple
    palette: tuple[tuple[int, int, int], ...]  # RGB per class
    splits: Mapping[str, int]  # expected number of images
    fetch: Callable[[Path, str | None], None]
    samples: Callable[[Path], Iterator[RawSample]]
    label_map: Mapping[int, int] | None  # raw value -> train id or IGNORE_INDEX; None: raw values are train ids
    licence: str
    homepage: str
    flip_pairs: tuple[tuple[int, int], ...] = ()  # (left, right) train ids that swap in a mirrored image
    image_size: tuple[int, int] | None = None  # (height, width) if all images have the same
    unlabelled_splits: tuple[str, ...] = ()  # without public labels: an evaluation server scores them
    submission_ids: tuple[int, ...] | None = None  # train id -> id in the server's format, for unlabelled splits
    download_bytes: int | None = None  # size of the official archives according to their homepage
    public: bool = True  # can be fetched without an account; False: `sources` in params.yaml must name a local copy
    label_variable: str = "S"  # of label files in MATLAB's format
    label_colours: Mapping[tuple[int, int, int], int] | None = None  # of labels in colours: RGB -> raw value
    shown: bool = True  # False: no picture of it appears in a report
    stray_label_hint: str = ""  # likely cause of a label value outside `label_map`, for the error message
    # Consecutive images of one sequence that are resampled together when confidence intervals are computed: frames of a
    # video resemble their neighbours.
    frames_per_block: int = 1

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes) or not 0 < len(self.classes) < IGNORE_INDEX:
            raise ValueError(f"{self.name}: {len(self.classes)} classes (at most 254), {len(self.palette)} colours")
        if not set(self.unlabelled_splits) <= set(self.splits):
            raise ValueError(f"{self.name}: unlabelled splits {self.unlabelled_splits} are not all among its splits")
        valid = {*range(len(self.classes)), IGNORE_INDEX}
        if wrong := {raw: k for raw, k in self.raw_values().items() if k not in valid}:
            raise ValueError(f"{self.name}: label_map: {wrong}: train ids are 0..{len(self.classes) - 1} and 255")
        for colour in self.label_colours or {}:
            if not isinstance(colour, tuple) or len(colour) != 3 or not all(value in range(256) for value in colour):
                raise ValueError(f"{self.name}: label_colours: {colour}: a colour is (R, G, B), each 0..255")
        if not set((self.label_colours or {}).values()) <= set(self.raw_values()):
            raise ValueError(f"{self.name}: label_colours has values that are not raw label values of the dataset")
        ids = self.submission_ids or ()
        if (ids or self.unlabelled_splits) and len(ids) != len(self.classes):
            raise ValueError(f"{self.name}: {len(ids)} submission ids, {len(self.classes)} classes")

    def raw_values(self) -> Mapping[int, int]:
        """Every valid raw label value and its train id."""
        if self.label_map is not None:
            return self.label_map
        return {**{k: k for k in range(len(self.classes))}, IGNORE_INDEX: IGNORE_INDEX}


def colourise(labels: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Train ids (H, W) as an RGB image (H, W, 3) uint8; ignored pixels are light grey."""
    table = np.full((256, 3), _IGNORED_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[labels]
