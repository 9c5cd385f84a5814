"""Finding a dataset by name."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.config.schema import SourceConfig
from pipeline.datasets import IGNORE_INDEX, dataset_names, get_dataset
from pipeline.datasets.planned import PlannedDataset, planned_datasets, write_planned_datasets
from pipeline.errors import PipelineError


def test_every_module_of_sources_is_a_dataset_of_that_name():
    assert set(dataset_names()) == {"digits", "camvid", "ccp", "ade20k", "cocostuff10k", "cityscapes", "lip"}
    assert all(get_dataset(name).name == name for name in dataset_names())


@pytest.mark.parametrize("name", dataset_names())
def test_raw_values_map_to_train_ids_or_ignore(name):
    spec = get_dataset(name)
    assert set(spec.raw_values().values()) - {IGNORE_INDEX} == set(range(len(spec.classes)))
    shared = 1 if name == "ade20k" else 0  # its road and its skyscraper have the same grey
    assert len(set(spec.palette)) == len(spec.classes) - shared
    assert len(set(spec.classes)) == len(spec.classes)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(PipelineError, match="did you mean `camvid`"):
        get_dataset("camvdi")


def test_a_declared_part_has_its_own_counts():
    assert get_dataset("cityscapes", {"val": 2}).splits == {"train": 0, "val": 2, "test": 0}
    assert get_dataset("cityscapes").splits == {"train": 2975, "val": 500, "test": 1525}


def test_a_part_of_an_unknown_split_suggests_the_nearest():
    with pytest.raises(PipelineError, match="no split 'vall'; did you mean `val`"):
        get_dataset("lip", {"vall": 2})


def test_the_plan_hands_source_and_counts_to_the_stages(tmp_path, tiny_benchmark):
    def planned(source):
        write_planned_datasets(tmp_path, [tiny_benchmark], {"digits": source, "lip": "/unused"})
        return planned_datasets(tmp_path)

    assert planned(None) == {"digits": PlannedDataset(None, None, ("tiny",))}
    assert planned("/digits") == {"digits": PlannedDataset("/digits", None, ("tiny",))}
    part = SourceConfig(path="/digits", images={"train": 3})
    assert planned(part) == {"digits": PlannedDataset("/digits", {"train": 3}, ("tiny",))}


def test_impossible_specifications_are_refused():
    spec = get_dataset("cityscapes")
    for change in (
        {"unlabelled_splits": ("dev",)},
        {"submission_ids": (1, 2)},
        {"submission_ids": None},
        {"palette": ()},
    ):
        with pytest.raises(ValueError, match="cityscapes"):
            dataclasses.replace(spec, **change)
