"""What the pipeline has to know about a dataset: one `DatasetSpec` per module of `pipeline.datasets.sources`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

IGNORE_INDEX = 255  # label of pixels that neither train nor count

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RawSample:
    """One image of the raw store. `id` is unique in the whole dataset and may contain `/`; `label` None: unlabelled."""

    id: str
    split: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset, from where it is fetched to what its labels mean.

    fetch(raw_dir, source) fills the raw store from `source`, a local folder or archive (None: the public address), and
    raises PipelineError with a remedy when it cannot. samples(raw_dir) lists what the store holds, in any order; a file
    that should be there but is not is listed all the same, so that preparing reports it by name.
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
    flip_pairs: Pairs = ()  # (left, right) train ids that change places in a mirrored image
    image_size: tuple[int, int] | None = None  # (height, width) when all images share it
    typical_size: tuple[int, int] | None = None  # (height, width) to estimate costs with, where they do not
    unlabelled_splits: tuple[str, ...] = ()  # their labels are not public: a server scores them
    submission_ids: tuple[int, ...] | None = None  # train id -> id in the server's format
    download_bytes: int | None = None  # of the official archives, as their owners announce it; None: not announced
    public: bool = True  # fetched without an account; False: `sources` in params.yaml has to name a local copy
    stray_label_hint: str = ""  # what a label value outside the table probably means, for the error message

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes) or not 0 < len(self.classes) <= IGNORE_INDEX:
            raise ValueError(f"{self.name}: {len(self.classes)} classes (at most 255), {len(self.palette)} colours")
        if not set(self.unlabelled_splits) <= set(self.splits):
            raise ValueError(f"{self.name}: unlabelled splits {self.unlabelled_splits} are not all among its splits")
        if self.submission_ids is not None and len(self.submission_ids) != len(self.classes):
            raise ValueError(f"{self.name}: {len(self.submission_ids)} submission ids, {len(self.classes)} classes")

    def raw_values(self) -> Mapping[int, int]:
        """Every raw label value that may occur, and its train id."""
        if self.label_map is not None:
            return self.label_map
        return {**{k: k for k in range(len(self.classes))}, IGNORE_INDEX: IGNORE_INDEX}
