"""Datasets: `spec`, `sources/` (one file each), `download` -> `prepare` -> `prepared` -> `transforms`, `loader`.

A new dataset is one new file `pipeline/datasets/sources/<name>.py` with a constant `DATASET: DatasetSpec`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.parse import suggestion
from pipeline.config.schema import DatasetConfig
from pipeline.datasets import sources
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample
from pipeline.errors import PipelineError

__all__ = ["IGNORE_INDEX", "DatasetSpec", "RawSample", "dataset_names", "get_dataset", "scored_split"]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations looks for a newer version online on import


def dataset_names() -> list[str]:
    """Names of all datasets: the modules of `pipeline.datasets.sources`, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__) if not module.ispkg)


def get_dataset(name: str, images: Mapping[str, int] | None = None) -> DatasetSpec:
    """The dataset `name`; `images` declares a part of it by the number of images in each split (0 if not named).

    Raises PipelineError with the nearest valid name for an unknown dataset or split.
    """
    if name not in dataset_names():
        raise PipelineError(
            f"dataset {name!r}: unknown; {suggestion(name, dataset_names())} (a new dataset is one file "
            f"pipeline/datasets/sources/{name}.py)"
        )
    spec: DatasetSpec = importlib.import_module(f"{sources.__name__}.{name}").DATASET
    if images is None:
        return spec
    for split in images:
        if split not in spec.splits:
            raise PipelineError(f"{name}: images: no split {split!r}; {suggestion(split, list(spec.splits))}")
    return replace(spec, splits={split: images.get(split, 0) for split in spec.splits})


def scored_split(dataset: DatasetConfig, spec: DatasetSpec) -> str:
    """The evaluation split, or the validation split if the labels of the former are not public."""
    unlabelled = dataset.evaluation_split in spec.unlabelled_splits
    return dataset.validation_split if unlabelled else dataset.evaluation_split
