"""Estimates of cost: counted exactly where they can be, and called estimates where they cannot."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.project import ROOT
from torch import nn

from pipeline.config import Benchmark, load_benchmark
from pipeline.datasets import get_dataset
from pipeline.planning import cost
from pipeline.planning.cost import ASSUMED_FLOPS, build_on_meta, evaluation_cost, training_cost


@pytest.fixture(scope="module")
def row() -> Benchmark:
    return load_benchmark(ROOT, "ade20k-resnet50os8")


@pytest.fixture
def one_convolution(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network of which everything is known: 3 -> 4 channels, 1x1, without bias, its input kept for the gradient."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False, device="meta"))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, images: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.body(images), coarse=None, auxiliary=(), representations=None)

    network = Network()
    monkeypatch.setattr(cost, "build_on_meta", lambda benchmark, spec: network)
    return network


def test_operations_of_a_step_are_those_of_forward_weight_gradient_and_loss(one_convolution, tiny_benchmark):
    spec = replace(get_dataset("digits"), classes=tuple("abcd"), palette=((0, 0, 0),) * 4, label_map=None)
    step = training_cost(tiny_benchmark, spec, spec.splits)
    pixels = 100 * 32 * 32  # batch x crop
    resized = 4 * (2 * 32 * 4 * pixels)  # four logits per pixel, along rows and columns, there and back
    assert step.flops == 2 * (2 * 3 * 4 * pixels) + resized  # the image needs no gradient
    assert step.weight_bytes == step.gradient_bytes == step.optimizer_bytes == 4 * 3 * 4
    assert step.activation_bytes >= 4 * 3 * pixels
    assert step.peak_bytes >= step.activation_bytes


def test_operations_of_an_evaluation_are_those_of_every_view(one_convolution, tiny_benchmark):
    spec = replace(get_dataset("digits"), classes=tuple("abcd"), palette=((0, 0, 0),) * 4, label_map=None)
    height, width = spec.image_size
    one = evaluation_cost(tiny_benchmark, spec, images=10, batch_size=1)
    assert one.flops == 2 * 3 * 4 * height * width * (
        2 + 2 / 4
    )  # scale 1 for both protocols, 0.5; each with its mirror
    assert evaluation_cost(tiny_benchmark, spec, images=10, batch_size=4).flops == one.flops
    assert one.seconds == 10 * one.flops / ASSUMED_FLOPS


def test_a_published_row_has_the_parameters_and_iterations_of_the_publication(row):
    spec = get_dataset("ade20k")
    step = training_cost(row, spec, spec.splits)
    assert step.iterations == 164_190
    assert sum(p.numel() for p in build_on_meta(row, spec).parameters()) == pytest.approx(23.527e6 + 67.96e6, rel=2e-3)
    assert step.optimizer_bytes == step.gradient_bytes


def test_activations_grow_with_the_batch_and_weights_do_not(row):
    spec = get_dataset("ade20k")
    small, large = (
        training_cost(
            row.model_copy(update={"schedule": row.schedule.model_copy(update={"batch_size": n})}), spec, spec.splits
        )
        for n in (2, 4)
    )
    assert large.activation_bytes == pytest.approx(2 * small.activation_bytes, rel=1e-3)
    assert (large.weight_bytes, large.gradient_bytes) == (small.weight_bytes, small.gradient_bytes)
    assert small.memory_bytes == small.weight_bytes + small.optimizer_bytes + small.peak_bytes


def test_attention_is_counted_without_the_matrix_of_affinities(row):
    """1024 x 512 positions: the matrix of one attention alone would take 1 TiB."""
    inference = row.inference.model_copy(update={"resize": None})
    spec = replace(get_dataset("ade20k"), image_size=(4096, 8192))
    one = evaluation_cost(row.model_copy(update={"inference": inference}), spec, images=1, batch_size=1)
    assert one.peak_bytes < 2**40


def test_adamw_keeps_two_numbers_per_parameter(tiny_benchmark):
    optimizer = tiny_benchmark.optimizer.model_copy(update={"name": "adamw"})
    spec = get_dataset("digits")
    step = training_cost(tiny_benchmark.model_copy(update={"optimizer": optimizer}), spec, spec.splits)
    assert step.optimizer_bytes == 2 * step.gradient_bytes


def test_most_bytes_at_once_are_those_of_tensors_that_live_together():
    live = cost._LiveBytes()
    with live:
        first = torch.empty(2**20, device="meta")  # 4 MiB
        second = first + 1
        del second
        third = first.view(2, -1) * 2
    assert live.peak == 8 * 2**20
    assert live.now == 8 * 2**20
    del first, third
    assert live.now == 0
