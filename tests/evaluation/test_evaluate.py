"""Running a network over a split: batches and precision do not change what is counted."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from helpers.model_benchmarks import Strided
from numpy.typing import NDArray

from pipeline.config.schema import ProtocolConfig
from pipeline.datasets.loader import EvalSample
from pipeline.evaluation.evaluate import Evaluated, by_protocol, evaluate

K = 5
SMALL, LARGE = (24, 40), (36, 28)


def split(*sizes: tuple[int, int]) -> list[EvalSample]:
    rng = np.random.default_rng(0)
    samples = []
    for i, size in enumerate(sizes):
        image = torch.from_numpy(rng.normal(size=(3, *size)).astype(np.float32))
        samples.append(EvalSample(image, rng.integers(0, K, size).astype(np.uint8), f"image_{i}", size))
    return samples


def evaluated(model: Strided, samples: list[EvalSample], **options: object) -> Evaluated:
    classify = by_protocol(model, {"s": ProtocolConfig()})
    return evaluate(model, samples, classify, K, torch.device("cpu"), **options)


def test_images_are_counted_alike_in_batches_and_alone_whatever_sizes_follow_each_other() -> None:
    samples = split(SMALL, SMALL, SMALL, SMALL, LARGE, LARGE, SMALL)
    alone, together = Strided(), Strided()
    ids, expected = evaluated(alone, samples, batch_size=1, boundaries=True)
    found_ids, found = evaluated(together, samples, batch_size=3, boundaries=True)
    assert [[shape[0] for shape in model.calls] for model in (alone, together)] == [[1] * 7, [3, 1, 2, 1]]
    assert found_ids == ids == [sample.id for sample in samples]
    assert np.array_equal(found["s"].confusion, expected["s"].confusion)
    assert np.array_equal(found["s"].images, expected["s"].images)


def test_label_maps_in_bfloat16_are_those_in_float32_but_for_near_ties() -> None:
    maps: dict[torch.dtype, list[NDArray[np.uint8]]] = {}
    for precision in ("float32", "bfloat16"):
        model, found = Strided(), []
        keep = partial(lambda found, _, predictions: found.append(predictions["s"]), found)
        evaluated(model, split(SMALL, LARGE), precision=precision, on_prediction=keep)
        maps[model.dtype] = found
    for exact, rounded in zip(maps[torch.float32], maps[torch.bfloat16], strict=True):
        assert np.mean(exact == rounded) > 0.97
