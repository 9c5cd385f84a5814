"""Order and content of batches do not depend on worker processes or on where an epoch is entered."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.schema import AugmentationConfig
from pipeline.datasets.loader import Share, TrainLoader, eval_loader
from pipeline.datasets.prepared import read_label
from pipeline.datasets.transforms import EvalTransform, TrainTransform
from pipeline.errors import PipelineError

COUNT, BATCH = 11, 3
TRANSFORM = TrainTransform(AugmentationConfig(crop=(16, 16)), ())


@pytest.fixture
def split(tmp_path):
    """Eleven labelled images as rows of `Prepared.split`."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        image, label = tmp_path / f"{i}.png", tmp_path / f"{i}_label.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (20, 24 + i, 3), np.uint8))
        cv2.imwrite(str(label), rng.integers(0, 5, (20, 24 + i), np.uint8))
        rows.append({"id": f"id{i}", "image": image, "label": label, "histogram": [0] * 6})
    return pd.DataFrame(rows)


def batches(loader, epoch, start=0):
    return [part for parts in loader.epoch(epoch, start=start) for part in parts]


def equal(left, right):
    return len(left) == len(right) and all(
        a.ids == b.ids and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(left, right, strict=True)
    )


def test_batches_have_the_promised_form(split):
    loader = TrainLoader(split, TRANSFORM, BATCH, seed=0, workers=0)
    found = batches(loader, 1)
    assert len(found) == loader.iterations_per_epoch == 3
    images, labels, ids = found[0]
    assert (images.shape, images.dtype) == ((3, 3, 16, 16), torch.float32)
    assert (labels.shape, labels.dtype) == ((3, 16, 16), torch.int64)
    assert len(ids) == 3


def test_an_epoch_visits_no_image_twice_and_epochs_and_seeds_differ(split):
    def order(seed, epoch):
        loader = TrainLoader(split, TRANSFORM, BATCH, seed, workers=0)
        return [i for batch in batches(loader, epoch) for i in batch.ids]

    assert len(set(order(0, 1))) == 9
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) == order(0, 1)


def test_workers_change_nothing(split):
    alone = TrainLoader(split, TRANSFORM, BATCH, seed=5, workers=0)
    helped = TrainLoader(split, TRANSFORM, BATCH, seed=5, workers=2)
    for epoch in (1, 2):
        assert equal(batches(alone, epoch), batches(helped, epoch))
        next(helped.epoch(epoch))  # abandoned


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_entered_in_the_middle(split, workers):
    loader = TrainLoader(split, TRANSFORM, BATCH, seed=5, workers=workers)
    whole = batches(loader, 4)
    assert equal(batches(loader, 4, start=2), whole[2:])
    assert batches(loader, 4, start=3) == []


@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 2), (2, 2)])
def test_the_shares_of_all_ranks_are_the_batch_of_one(split, world, parts):
    whole = batches(TrainLoader(split, TRANSFORM, 4, seed=5, workers=0), 1)
    shares = [
        list(TrainLoader(split, TRANSFORM, 4, seed=5, workers=0, share=Share(rank, world, parts)).epoch(1))
        for rank in range(world)
    ]
    for index, batch in enumerate(whole):
        pieces = [part for share in shares for part in share[index]]
        assert all(len(share[index]) == parts for share in shares)
        assert [image_id for piece in pieces for image_id in piece.ids] == batch.ids
        assert torch.equal(torch.cat([piece.images for piece in pieces]), batch.images)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_are_not_touched(split, workers):
    """Dropout draws from them: a resumed run must find them as an uninterrupted one does."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches(TrainLoader(split, TRANSFORM, BATCH, seed=0, workers=workers), 1)
    list(eval_loader(split, EvalTransform(None), workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_split_smaller_than_a_batch_has_no_iteration(split):
    assert TrainLoader(split, TRANSFORM, 12, seed=0, workers=0).iterations_per_epoch == 0


def error_of(samples):
    # Not pytest.raises: it keeps the traceback, and with it the workers, until the garbage collector comes.
    try:
        list(samples)
    except PipelineError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named(split, workers):
    split["image"].iloc[4].write_bytes(b"broken")
    loader = TrainLoader(split, TRANSFORM, 1, seed=0, workers=workers)
    for samples in (loader.epoch(1), eval_loader(split, EvalTransform(None), workers)):
        message = error_of(samples)
        assert "4.png: cannot be decoded" in message
        assert "Traceback" not in message


def test_a_label_that_is_no_class_is_named(split):
    cv2.imwrite(str(split["label"].iloc[4]), np.full((20, 28), 7, np.uint8))
    loader = TrainLoader(split, TRANSFORM, 1, seed=0, workers=0)
    for samples in (loader.epoch(1), eval_loader(split, EvalTransform(None), 0)):
        assert "4_label.png: holds [7], expected 0..4 or 255 (ignore); delete this file and run" in error_of(samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_keeps_table_order_and_original_labels(split, workers):
    split.loc[2, "label"] = None
    samples = list(eval_loader(split, EvalTransform(None), workers))
    assert [sample.id for sample in samples] == list(split["id"])
    assert samples[2].label is None
    for i, sample in itertools.islice(enumerate(samples), 2):
        assert sample.size == (20, 24 + i)
        assert sample.image.shape == (3, 20, 24 + i)
        assert isinstance(sample.label, np.ndarray)
        assert np.array_equal(sample.label, read_label(split["label"].iloc[i]))
