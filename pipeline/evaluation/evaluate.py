"""Run a segmentor over a split and count: one confusion matrix per protocol, and per image vectors of length K."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.config.schema import Cascade, ProtocolConfig, ResizeConfig, RuntimeConfig
from pipeline.datasets.loader import EvalSample, eval_loader
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.datasets.transforms import EvalTransform
from pipeline.errors import PipelineError
from pipeline.evaluation.views import FlipPairs, predict
from pipeline.results.metrics import Counts, confusion_matrix, near_boundaries
from pipeline.runtime.device import autocast, worker_count
from pipeline.runtime.distributed import gather_on_main, ranks

LabelMap = NDArray[np.uint8]  # (H, W)


@dataclass
class ProtocolCounts:
    """Pixel counts of one protocol: the whole split's confusion matrix and, per image, what a bootstrap needs."""

    confusion: NDArray[np.int64]  # (K, K)
    images: list[NDArray[np.int64]] = field(default_factory=list)  # (3, K), or (6, K) with those near boundaries

    def add(self, prediction: LabelMap, truth: LabelMap, near_truth: LabelMap | None) -> None:
        """Count one more image, label maps (H, W). near_truth: `near_boundaries` of the truth; None: leave them out."""
        classes = len(self.confusion)
        confusion = confusion_matrix(prediction, truth, classes)
        self.confusion += confusion
        counts = [*Counts.of_confusion(confusion)]
        if near_truth is not None:
            near = near_boundaries(prediction, truth == IGNORE_INDEX, classes)
            matrix = confusion_matrix(near, near_truth, classes + 1)  # the last class is what is not near
            counts += [part[:classes] for part in Counts.of_confusion(matrix)]
        self.images.append(np.stack(counts))

    def per_image(self) -> Counts:
        """(N, K) each."""
        return Counts(*np.stack(self.images, axis=1)[:3])

    def per_boundary(self) -> Counts:
        """(N, K) each, of the pixels near a boundary of the prediction, of the truth, or of both (`intersection`)."""
        return Counts(*np.stack(self.images, axis=1)[3:])


Classify = Callable[[Tensor, Sequence[EvalSample]], dict[str, Tensor]]
OnPrediction = Callable[[str, dict[str, LabelMap]], None]
Evaluated = tuple[list[str], dict[str, ProtocolCounts]]


def by_protocol(
    model: nn.Module,
    protocols: Mapping[str, ProtocolConfig],
    flip_pairs: FlipPairs = (),
    cascade: Cascade = "none",
) -> Classify:
    """Label maps of the model under every protocol; further arguments as for `views.predict`."""
    return lambda images, samples: predict(model, images, protocols, samples[0].size, flip_pairs, cascade)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    samples: Iterable[EvalSample],
    classify: Classify,
    num_classes: int,
    device: torch.device,
    *,
    precision: str = "float32",
    batch_size: int = 1,
    boundaries: bool = False,
    on_prediction: OnPrediction | None = None,
    progress: str | None = None,
    total: int | None = None,
) -> Evaluated:
    """(image ids, counts by name) of `model` over `samples`; the model's mode is put back afterwards.

    Neighbours of equal size share a batch of at most `batch_size`. classify: the label maps (B, H, W) int64 of images
    (B, 3, h, w) and their samples, by name (of a protocol, or a probe). boundaries: count the pixels near them too.
    on_prediction receives every image's id and its (H, W) uint8 label map by name. progress: label of the progress bar,
    None for no bar.
    """
    was_training = model.training
    model.eval()
    ids: list[str] = []
    counts: dict[str, ProtocolCounts] = {}
    try:
        hidden = progress is None or not ranks().is_main
        with tqdm(total=total, desc=progress, disable=hidden, unit="image", dynamic_ncols=True) as bar:
            for batch in batches(samples, batch_size):
                images = torch.stack([sample.image for sample in batch]).to(device, non_blocking=True)
                with autocast(device, precision):
                    maps = classify(images, batch)
                arrays = {name: m.to(torch.uint8).cpu().numpy() for name, m in maps.items()}  # (B, H, W)
                for i, sample in enumerate(batch):
                    predictions = {name: array[i] for name, array in arrays.items()}
                    ids.append(sample.id)
                    truth, near = sample.label, None
                    if truth is not None and boundaries:
                        near = near_boundaries(truth, truth == IGNORE_INDEX, num_classes)
                    for name, prediction in predictions.items() if truth is not None else ():
                        if name not in counts:
                            counts[name] = ProtocolCounts(np.zeros((num_classes, num_classes), np.int64))
                        counts[name].add(prediction, truth, near)
                    if on_prediction is not None:
                        on_prediction(sample.id, predictions)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return ids, counts


def evaluate_split(
    model: nn.Module,
    table: pd.DataFrame,
    resize: ResizeConfig | None,
    classify: Classify,
    num_classes: int,
    device: torch.device,
    runtime: RuntimeConfig,
    **options: Any,
) -> Evaluated | None:
    """`evaluate` on the rows of a `Prepared.split`, of which every rank takes its share; see `gather_results`."""
    own = table.iloc[ranks().rank :: ranks().world]
    samples = eval_loader(own, EvalTransform(resize), worker_count(runtime.workers))
    options |= {"precision": runtime.precision, "batch_size": runtime.evaluation_batch, "total": len(own)}
    return gather_results(evaluate(model, samples, classify, num_classes, device, **options), list(table["id"]))


def batches(samples: Iterable[Any], batch_size: int) -> Iterator[list[Any]]:
    """Consecutive samples whose `image` (3, h, w) and `size` (H, W) agree, at most `batch_size` at a time."""
    for _, same in groupby(samples, key=lambda sample: (sample.image.shape, sample.size)):
        while batch := list(islice(same, batch_size)):
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
    counted = [counts for _, counts in parts if counts]  # none of an unlabelled split
    for name in counted[0] if counted else ():
        rows = [row for counts in counted for row in counts[name].images]
        confusion = np.sum([counts[name].confusion for counts in counted], axis=0)
        merged[name] = ProtocolCounts(confusion, [rows[position[image_id]] for image_id in order])
    return list(order), merged
