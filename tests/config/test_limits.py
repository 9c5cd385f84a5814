"""What `runtime` cannot do with a benchmark is reported before any work, with what it can do."""

from __future__ import annotations

import pytest
import torch
from helpers.model_benchmarks import benchmark, small_benchmark

from pipeline.config.limits import share_problem
from pipeline.config.schema import Benchmark, RuntimeConfig
from pipeline.models import build_segmentor
from pipeline.models.context import FRAMEWORKS
from pipeline.models.encoder import needs_two_images


def of_batch(framework: str, batch: int) -> Benchmark:
    benchmark = small_benchmark(framework)
    return benchmark.model_copy(update={"schedule": benchmark.schedule.model_copy(update={"batch_size": batch})})


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks_that_pool_to_one_cell_need_two_images(framework: str) -> None:
    with torch.device("meta"):
        model = build_segmentor(small_benchmark(framework), 5)
    assert needs_two_images(model, (64, 64)) == (framework in ("deeplabv3", "pspnet", "upernet"))


def test_an_encoder_that_pools_or_ends_in_one_pixel_needs_two_images() -> None:
    attention = benchmark("fcn", encoder={"name": "tu-resnest14d"}, channels=16)
    deep = benchmark("fcn", encoder={"name": "resnet18"}, channels=16)
    with torch.device("meta"):
        assert needs_two_images(build_segmentor(attention, 5), (64, 64))
        assert needs_two_images(build_segmentor(deep, 5), (32, 32))
        assert not needs_two_images(build_segmentor(deep, 5), (64, 64))


def test_parts_of_one_image_are_refused_where_batch_norm_needs_two() -> None:
    problem = share_problem(of_batch("pspnet", 4), RuntimeConfig(accumulate=4), least=2)
    assert problem is not None
    assert "leaves one image" in problem
    assert problem.endswith("devices x nodes x accumulate may be 1, 2")
    assert share_problem(of_batch("pspnet", 4), RuntimeConfig(accumulate=2), least=2) is None
    assert share_problem(of_batch("fcn", 4), RuntimeConfig(accumulate=4)) is None
    # Several GPUs pool their statistics, processes on the CPU do not.
    assert share_problem(of_batch("pspnet", 2), RuntimeConfig(devices=2, device="cuda"), least=2) is None
    assert share_problem(of_batch("pspnet", 2), RuntimeConfig(devices=2, device="cpu"), least=2) is not None


def test_a_batch_that_cannot_be_divided_names_the_divisors() -> None:
    problem = share_problem(of_batch("fcn", 6), RuntimeConfig(devices=4))
    assert problem is not None
    assert problem.endswith("may be 1, 2, 3, 6")
