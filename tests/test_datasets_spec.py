"""Finding a dataset by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.datasets import IGNORE_INDEX, dataset_names, get_dataset
from pipeline.errors import PipelineError


def test_every_module_of_sources_is_a_dataset_of_that_name():
    assert {"digits", "camvid"} <= set(dataset_names())
    assert all(get_dataset(name).name == name for name in dataset_names())


@pytest.mark.parametrize("name", dataset_names())
def test_raw_values_map_to_train_ids_or_ignore(name):
    spec = get_dataset(name)
    assert set(spec.raw_values().values()) - {IGNORE_INDEX} == set(range(len(spec.classes)))
    assert len(set(spec.palette)) == len(spec.classes)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(PipelineError, match="did you mean `camvid`"):
        get_dataset("camvdi")


def test_datasets_import_neither_dvc_nor_mlflow_and_do_not_call_home():
    code = (
        "import os, sys, pipeline.datasets.download, pipeline.datasets.prepare, pipeline.datasets.loader;"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1';"
        "assert not {'dvc', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
