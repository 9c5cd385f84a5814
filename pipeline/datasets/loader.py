"""Batches for training, single images for evaluation; order and content do not depend on the number of workers."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.datasets.prepared import read_image, read_label
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.datasets.transforms import EvalTransform, TrainTransform
from pipeline.errors import PipelineError

ItemT = TypeVar("ItemT")


class TrainBatch(NamedTuple):
    """Images float32 (B, 3, h, w), labels int64 (B, h, w) with 255 = ignore, ids of the B images."""

    images: Tensor
    labels: Tensor
    ids: list[str]


class EvalSample(NamedTuple):
    """Image float32 (3, h, w); label uint8 (H, W) at the original size, or None; id; size (H, W)."""

    image: Tensor
    label: NDArray[np.uint8] | None
    id: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Share:
    """The part of every global batch that belongs to one rank, split into `parts` for gradient accumulation."""

    rank: int = 0
    world: int = 1
    parts: int = 1


class TrainLoader:
    """Shuffled, augmented batches of the rows of a `Prepared.split`, all of which have labels.

    Epoch e visits the images in a permutation drawn from (seed, e) and drops the last incomplete batch. Augmentation of
    an image depends on (seed, e, row) only: it is the same for any number of workers and ranks, and after a resume in
    the middle of an epoch. `batch_size` is that of all ranks together, and `share` divides it into equal parts.
    """

    def __init__(
        self,
        prepared_split: pd.DataFrame,
        transform: TrainTransform,
        batch_size: int,
        seed: int,
        workers: int,
        share: Share = Share(),
    ) -> None:
        self._order = _EpochOrder(len(prepared_split), batch_size, seed, share)
        self._loader = _data_loader(
            _TrainItems(prepared_split, transform, seed),
            workers,
            batch_sampler=self._order,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def iterations_per_epoch(self) -> int:
        """Number of full batches; 0 when the split is smaller than one."""
        return self._order.batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[TrainBatch]]:
        """Batches from `start` on, each as parts of this rank's share. Raises PipelineError for an unreadable file."""
        self._order.epoch, self._order.start = epoch, start
        loaded = iter(self._loader)
        while parts := [_unless_failed(part) for part in itertools.islice(loaded, self._order.share.parts)]:
            yield parts


def eval_loader(prepared_split: pd.DataFrame, transform: EvalTransform, workers: int) -> Iterator[EvalSample]:
    """Every row of a `Prepared.split`, in its order. Raises PipelineError that names an unreadable file."""
    for sample in _data_loader(_EvalItems(prepared_split, transform), workers, batch_size=None, collate_fn=_unchanged):
        yield _unless_failed(sample)


class _EpochOrder:
    """Batch sampler: (epoch, row) keys of each part of this rank's share of each batch, for the epoch that is set."""

    def __init__(self, rows: int, batch_size: int, seed: int, share: Share) -> None:
        self.rows, self.batch_size, self.seed, self.share = rows, batch_size, seed, share
        self.batches = rows // batch_size
        self.epoch, self.start = 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        for batch in range(self.start, self.batches):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            for part in np.split(np.split(rows, self.share.world)[self.share.rank], self.share.parts):
                yield [(self.epoch, int(row)) for row in part]


class _Items(Dataset):
    """Row -> id, image (H, W, 3) and label (H, W) or None; or the PipelineError that prevented it.

    Errors are returned as values: raised in a worker, they would carry the worker's traceback in their message.
    """

    def __init__(self, table: pd.DataFrame, transform: Callable[..., Any], seed: int = 0) -> None:
        self.ids, self.images, self.labels, self.histograms = (
            table[name].tolist() for name in ("id", "image", "label", "histogram")
        )
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None] | PipelineError:
        try:
            label = None if self.labels[row] is None else read_label(self.labels[row])
            if label is not None:
                _require_classes(label, len(self.histograms[row]) - 1, self.labels[row])
            return read_image(self.images[row]), label
        except PipelineError as error:
            remedy = "delete this file and run `dvc repro`: preprocess recreates it and the run resumes"
            return PipelineError(f"{error}; {remedy}")


def _require_classes(label: NDArray[np.uint8], classes: int, path: Path) -> None:
    """Raise PipelineError for a value that is not a class: here it can be named; on a GPU it only stops the process."""
    stray = (label >= classes) & (label != IGNORE_INDEX)
    if stray.any():
        found = np.unique(label[stray]).tolist()
        raise PipelineError(f"{path}: holds {found}, expected 0..{classes - 1} or {IGNORE_INDEX} (ignore)")


class _TrainItems(_Items):
    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str] | PipelineError:
        epoch, row = key
        seed = int(np.random.SeedSequence([self.seed, epoch, row]).generate_state(1, np.uint64)[0])
        read = self.read(row)
        return read if isinstance(read, PipelineError) else (*self.transform(*read, seed), self.ids[row])


class _EvalItems(_Items):
    def __getitem__(self, row: int) -> EvalSample | PipelineError:
        read = self.read(row)
        if isinstance(read, PipelineError):
            return read
        image, label = read
        return EvalSample(self.transform(image), label, self.ids[row], image.shape[:2])


def _data_loader(items: Dataset, workers: int, **options: object) -> DataLoader:
    return DataLoader(
        items,
        num_workers=workers,
        worker_init_fn=_start_worker,
        # A separate generator: otherwise every epoch would draw from torch's global one, and dropout after a resume
        # would differ from dropout without the interruption.
        generator=torch.Generator(),
        **options,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Ctrl-C reaches the whole process group, but the main process finishes its iteration and saves. It then stops the
    # workers itself, with SIGTERM if necessary.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(items: list[tuple[Tensor, Tensor, str] | PipelineError]) -> TrainBatch | PipelineError:
    for item in items:
        if isinstance(item, PipelineError):
            return item
    images, labels, ids = zip(*items, strict=True)
    return TrainBatch(torch.stack(images), torch.stack(labels), list(ids))


def _unchanged(sample: EvalSample | PipelineError) -> EvalSample | PipelineError:
    return sample


def _unless_failed(item: ItemT | PipelineError) -> ItemT:
    if isinstance(item, PipelineError):
        raise item
    return item
