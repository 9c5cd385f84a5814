"""The built-in dataset of handwritten digits in photographs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.datasets import get_dataset
from pipeline.datasets.prepared import read_image, read_label
from pipeline.datasets.sources import digits
from pipeline.errors import PipelineError


def test_splits_share_no_handwriting_sample_and_no_drawing():
    everything = np.concatenate(list(digits.split_samples().values()))
    assert sorted(everything) == list(range(1797))
    images = load_digits().images
    drawn = [{images[i].tobytes() for i in indices} for indices in digits.split_samples().values()]
    assert not any(one & other for one, other in itertools.combinations(drawn, 2))


def test_splits_are_stratified():
    target = load_digits().target
    for split, share in digits.SAMPLE_SHARES.items():
        counts = np.bincount(target[digits.split_samples()[split]], minlength=10)
        assert np.allclose(counts, share * np.bincount(target), atol=1)


def test_photograph_regions_of_splits_do_not_meet():
    regions = sorted(digits.PHOTO_COLUMNS.values())
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(regions))
    assert all(right - left >= digits.SCENE_SIZE for left, right in regions)


def test_a_scene_depends_only_on_split_and_number():
    first, again = digits.compose_scene("val", 3), digits.compose_scene("val", 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = digits.compose_scene("val", 4)
    assert not np.array_equal(first[0], other[0])


def test_scenes_hold_every_class_and_nothing_else():
    labels = np.stack([digits.compose_scene("train", i)[1] for i in range(60)])
    assert labels.shape == (60, digits.SCENE_SIZE, digits.SCENE_SIZE)
    assert set(np.unique(labels)) == set(range(11))
    assert all(len(np.unique(label)) >= 2 for label in labels)


def test_fetch_writes_what_samples_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "SCENES", {"train": 3, "val": 2, "test": 1})
    spec = get_dataset("digits")
    spec.fetch(tmp_path, None)
    samples = list(spec.samples(tmp_path))
    assert [s.id for s in samples] == ["train_0000", "train_0001", "train_0002", "val_0000", "val_0001", "test_0000"]
    image, label = digits.compose_scene("val", 1)
    assert np.array_equal(read_image(samples[4].image), image)
    assert np.array_equal(read_label(samples[4].label), label)


def test_a_source_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"sources\.digits.*built in"):
        get_dataset("digits").fetch(tmp_path, "/somewhere")
