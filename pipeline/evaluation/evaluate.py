"""Run a segmentor over a split and count (streaming: one confusion matrix per protocol, three vectors per image)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.config.schema import ProtocolConfig
from pipeline.datasets.loader import EvalSample
from pipeline.errors import PipelineError
from pipeline.evaluation.views import FlipPairs, predict
from pipeline.results.metrics import confusion_matrix
from pipeline.runtime.device import autocast
from pipeline.runtime.distributed import gather_on_main, ranks


@dataclass
class ProtocolCounts:
    """Pixel counts of one protocol: the whole split's confusion matrix and, per image, what a bootstrap needs."""

    confusion: NDArray[np.int64]  # (K, K)
    intersection: list[NDArray[np.int64]] = field(default_factory=list)  # (K,) each
    prediction: list[NDArray[np.int64]] = field(default_factory=list)
    truth: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, confusion: NDArray[np.int64]) -> None:
        """Count one more image, given its (K, K) matrix."""
        self.confusion += confusion
        self.intersection.append(confusion.diagonal().copy())
        self.prediction.append(confusion.sum(axis=0))
        self.truth.append(confusion.sum(axis=1))

    def per_image(self) -> dict[str, NDArray[np.int64]]:
        """intersection, prediction and truth, each (N, K)."""
        return {name: np.stack(getattr(self, name)) for name in ("intersection", "prediction", "truth")}


Prediction = NDArray[np.uint8]
OnPrediction = Callable[[str, dict[str, Prediction]], None]
Evaluated = tuple[list[str], dict[str, ProtocolCounts]]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    samples: Iterable[EvalSample],
    protocols: Mapping[str, ProtocolConfig],
    num_classes: int,
    device: torch.device,
    *,
    precision: str = "float32",
    batch_size: int = 1,
    flip_pairs: FlipPairs = (),
    on_prediction: OnPrediction | None = None,
    progress: str | None = None,
    total: int | None = None,
) -> Evaluated:
    """(image ids, counts per protocol) of `model` over `samples`; the model's mode is put back afterwards.

    Neighbours of equal size share a batch of at most `batch_size`. on_prediction receives every image's id and its
    (H, W) uint8 label map per protocol. progress: label of the progress bar, None for no bar.
    """
    was_training = model.training
    model.eval()
    ids: list[str] = []
    counts = {name: ProtocolCounts(np.zeros((num_classes, num_classes), np.int64)) for name in protocols}
    try:
        hidden = progress is None or not ranks().is_main
        with tqdm(total=total, desc=progress, disable=hidden, unit="image", dynamic_ncols=True) as bar:
            for batch in batches(samples, batch_size):
                images = torch.stack([sample.image for sample in batch]).to(device, non_blocking=True)
                with autocast(device, precision):
                    maps = predict(model, images, protocols, batch[0].size, flip_pairs)
                arrays = {name: m.to(torch.uint8).cpu().numpy() for name, m in maps.items()}  # (B, H, W)
                for i, sample in enumerate(batch):
                    predictions = {name: array[i] for name, array in arrays.items()}
                    ids.append(sample.id)
                    if sample.label is not None:
                        for name, prediction in predictions.items():
                            counts[name].add(confusion_matrix(prediction, sample.label, num_classes))
                    if on_prediction is not None:
                        on_prediction(sample.id, predictions)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return ids, counts


class Sized(Protocol):
    """One image float32 (3, h, w), and the (H, W) of its label map."""

    @property
    def image(self) -> Tensor: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102


SampleT = TypeVar("SampleT", bound=Sized)


def batches(samples: Iterable[SampleT], batch_size: int) -> Iterator[list[SampleT]]:
    """Consecutive samples of one size (tensor and original), at most `batch_size` at a time."""
    batch: list[SampleT] = []
    for sample in samples:
        same = batch and (sample.image.shape, sample.size) == (batch[0].image.shape, batch[0].size)
        if batch and (not same or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def gather_results(evaluated: Evaluated, order: Sequence[str]) -> Evaluated | None:
    """The parts of all ranks as one, in `order` of image ids, on the main rank; None on the others.

    Raises PipelineError unless every image of `order` was evaluated exactly once: no duplicate ever counts.
    """
    parts = gather_on_main(evaluated)
    if parts is None:
        return None
    found = [image_id for ids, _ in parts for image_id in ids]
    if sorted(found) != sorted(order):
        raise PipelineError(f"{len(found)} images were evaluated over all ranks, expected {len(order)}, each once")
    position = {image_id: index for index, image_id in enumerate(found)}
    merged: dict[str, ProtocolCounts] = {}
    for name in parts[0][1]:
        counts = [part[name] for _, part in parts]
        merged[name] = ProtocolCounts(np.sum([c.confusion for c in counts], axis=0))
        for vector in ("intersection", "prediction", "truth"):
            rows = [row for c in counts for row in getattr(c, vector)]
            if rows:  # an unlabelled split has none
                setattr(merged[name], vector, [rows[position[image_id]] for image_id in order])
    return list(order), merged
