"""What `runtime` cannot do with a benchmark is reported before any work, with what it can do."""

from __future__ import annotations

import pytest
import torch
from helpers.model_benchmarks import small_benchmark

from pipeline.config.limits import POOLED_TO_ONE_CELL, share_problem
from pipeline.config.schema import Benchmark, RuntimeConfig
from pipeline.models import build_segmentor
from pipeline.models.context import FRAMEWORKS


def of_batch(framework: str, batch: int) -> Benchmark:
    benchmark = small_benchmark(framework)
    return benchmark.model_copy(update={"schedule": benchmark.schedule.model_copy(update={"batch_size": batch})})


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_frameworks_that_need_two_images_are_those_that_pool_to_one_cell(framework: str) -> None:
    model, image = build_segmentor(small_benchmark(framework), 5).train(), torch.randn(1, 3, 64, 64)
    if framework in POOLED_TO_ONE_CELL:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(image)
    else:
        model(image)


def test_parts_of_one_image_are_refused_where_batch_norm_needs_two() -> None:
    problem = share_problem(of_batch("pspnet", 4), RuntimeConfig(accumulate=4))
    assert problem is not None
    assert "leaves one image" in problem
    assert problem.endswith("devices x nodes x accumulate may be 1, 2")
    assert share_problem(of_batch("pspnet", 4), RuntimeConfig(accumulate=2)) is None
    assert share_problem(of_batch("fcn", 4), RuntimeConfig(accumulate=4)) is None
    # Several GPUs pool their statistics, processes on the CPU do not.
    assert share_problem(of_batch("pspnet", 2), RuntimeConfig(devices=2, device="cuda")) is None
    assert share_problem(of_batch("pspnet", 2), RuntimeConfig(devices=2, device="cpu")) is not None


def test_a_batch_that_cannot_be_divided_names_the_divisors() -> None:
    problem = share_problem(of_batch("fcn", 6), RuntimeConfig(devices=4))
    assert problem is not None
    assert problem.endswith("may be 1, 2, 3, 6")
