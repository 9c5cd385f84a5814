"""Datasets: `spec` (what one is), `sources/` (the datasets), `download` -> `prepare` -> `prepared` -> `loader`.

A new dataset is one new file `pipeline/datasets/sources/<name>.py` with a constant `DATASET: DatasetSpec`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.parse import nearest
from pipeline.config.schema import DatasetConfig
from pipeline.datasets import sources
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample
from pipeline.errors import PipelineError

__all__ = ["IGNORE_INDEX", "DatasetSpec", "RawSample", "dataset_names", "get_dataset", "scored_split"]


os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the internet for its newest version on import


def dataset_names() -> list[str]:
    """Names of all datasets: the modules of `pipeline.datasets.sources`, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__) if not module.ispkg)


def get_dataset(name: str, images: Mapping[str, int] | None = None) -> DatasetSpec:
    """The dataset called `name`; with `images`, a declared part of it that has so many in each split (0 if not named).

    Raises PipelineError with the nearest valid name when there is no such dataset or split.
    """
    names = dataset_names()
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(names)}"
        raise PipelineError(
            f"dataset {name!r}: unknown; {hint} (a new dataset is one file pipeline/datasets/sources/{name}.py)"
        )
    spec: DatasetSpec = importlib.import_module(f"{sources.__name__}.{name}").DATASET
    return spec if images is None else _part(spec, images)


def _part(spec: DatasetSpec, images: Mapping[str, int]) -> DatasetSpec:
    known = list(spec.splits)
    for split in images:
        if split not in known:
            near = nearest(split, known)
            hint = f"did you mean `{near}`?" if near else f"it has {', '.join(known)}"
            raise PipelineError(f"{spec.name}: images: no split {split!r}; {hint}")
    return replace(spec, splits={split: images.get(split, 0) for split in known})


def scored_split(dataset: DatasetConfig, spec: DatasetSpec) -> str:
    """The split that can be scored here: the evaluation split, or the validation split when its labels are missing."""
    unlabelled = dataset.evaluation_split in spec.unlabelled_splits
    return dataset.validation_split if unlabelled else dataset.evaluation_split
