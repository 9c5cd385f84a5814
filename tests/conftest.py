"""Shared fixtures: a complete small benchmark and a project folder to run it in."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch is imported: the goldens were made with these kernels, and agree to 1e-5 instead of 1e-3 with them.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import pytest
from helpers.project import TINY, make_project, prepare_all

from pipeline.config.parse import parse
from pipeline.config.schema import Benchmark

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


# By what they took; pytest-xdist hands files out in this order only with --no-loadscope-reorder.
LONGEST_FILES = ("test_pipeline.py", "test_goldens.py", "test_repro_rows.py", "test_training.py", "test_tracking.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; all others fill the time, so that no process ends long after the other."""
    rank = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The small benchmark as it would stand in params/<id>.yaml; change it at will."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny_benchmark(tiny: dict[str, Any]) -> Benchmark:
    return parse(Benchmark, {"id": "tiny", **tiny}, "tiny")


@pytest.fixture
def kernels_as_before() -> Iterator[None]:
    """Put back what `set_kernels` chooses for the whole process."""
    import torch

    places = [(torch.backends.cudnn, "allow_tf32"), (torch.backends.cudnn, "benchmark")]
    places += [(torch.backends.cuda.matmul, "allow_tf32"), (torch.utils.deterministic, "fill_uninitialized_memory")]
    before = [getattr(*place) for place in places]
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    for place, value in zip(places, before, strict=True):
        setattr(*place, value)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def _no_store_of_an_earlier_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow hands the store it last used on through the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's code, `params.yaml` and the benchmarks tiny-fcn and tiny-fcn-mcibi."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def prepared_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after plan, download and preprocess: copy it before changing it."""
    root = make_project(tmp_path_factory.mktemp("prepared") / "project")
    prepare_all(root)
    return root
