"""One training step: what is in its losses, what is done to its gradient, and half precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.model_benchmarks import Plain, small_benchmark, trainer_of
from helpers.tensors import random_labels
from torch import Tensor
from torch.nn import functional as F

from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import build_segmentor
from pipeline.training.step import Trainer, training_step

K = 5
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
LABELS = random_labels((4, 32, 32), K)


def plain_trainer(class_weights: Tensor | None = None, clip: float | None = None) -> Trainer:
    torch.manual_seed(0)
    config = small_benchmark("fcn", None)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"clip_grad_norm": clip})})
    return trainer_of(config, Plain(K).train(), class_weights=class_weights)


def total_norm(trainer: Trainer) -> float:
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in trainer.model.parameters()]).item()


def test_class_weights_weigh_the_pixels_of_a_step() -> None:
    weights = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])
    trainer = plain_trainer(weights)
    expected = F.cross_entropy(trainer.model.layers(IMAGES), LABELS, weights, ignore_index=IGNORE_INDEX)
    found = training_step(trainer, [(IMAGES, LABELS)], iteration=0, epoch=1)["loss_final"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_long_gradient_is_shortened_to_the_norm_asked_for_and_a_short_one_left() -> None:
    free, clipped, loose = (plain_trainer(clip=clip) for clip in (None, 1e-3, 1e3))
    found = [training_step(one, [(IMAGES, LABELS)], iteration=0, epoch=1) for one in (free, clipped, loose)]
    assert total_norm(clipped) == pytest.approx(1e-3, rel=1e-3)
    assert total_norm(loose) == total_norm(free) > 1e-2
    assert found[1]["grad_norm"] == found[0]["grad_norm"]  # what is logged is the norm before


def test_a_step_in_bfloat16_is_that_in_float32_up_to_rounding() -> None:
    steps = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        config = small_benchmark("fcn", {})
        model = build_segmentor(config, K).train()
        trainer = replace(trainer_of(config, model), precision=precision)
        values = training_step(trainer, [(IMAGES, LABELS)], iteration=0, epoch=1)
        steps.append({"loss": values["loss"], "norm": values["grad_norm"], "memory": model.memory.memory.clone()})
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for name, expected in steps[0].items():
        difference = (steps[1][name] - expected).norm() / expected.norm()
        assert 0 < difference < 0.05, name
