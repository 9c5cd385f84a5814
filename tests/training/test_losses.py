"""Losses: which terms a model pays, and their edge cases."""

from __future__ import annotations

import pytest
import torch
from helpers.model_benchmarks import small_benchmark
from torch.nn import functional as F

from pipeline.config.schema import LossConfig
from pipeline.models import SegmentorOutput, build_segmentor
from pipeline.training.losses import consistency_loss, pixel_cross_entropy, pixel_losses

CLASSES = 5


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, CLASSES, 4, 6, generator=torch.Generator().manual_seed(seed))


def labels() -> torch.Tensor:
    drawn = torch.randint(0, CLASSES, (2, 16, 24), generator=torch.Generator().manual_seed(1))
    drawn[:, :3] = 255
    return drawn


def test_cross_entropy_is_the_mean_over_valid_pixels_of_the_upsampled_logits() -> None:
    full = F.interpolate(logits(), size=(16, 24), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(full[:, :, 3:], labels()[:, 3:])
    assert pixel_cross_entropy(logits(), labels()).item() == pytest.approx(expected.item(), rel=1e-6)


def test_batch_without_a_valid_pixel_costs_nothing_and_gives_no_nan() -> None:
    leaf = logits().requires_grad_()
    loss = pixel_cross_entropy(leaf, torch.full((2, 16, 24), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_terms_are_weighted_and_absent_for_absent_maps_and_zero_weights() -> None:
    output = SegmentorOutput(logits(0), logits(1), (logits(2),), None)
    terms = pixel_losses(output, labels(), LossConfig(final=1.0, coarse=0.4, auxiliary=0.2))
    assert terms.keys() == {"final", "coarse", "auxiliary"}
    assert terms["coarse"].item() == pytest.approx(0.4 * pixel_cross_entropy(logits(1), labels()).item())
    assert pixel_losses(output._replace(auxiliary=()), labels(), LossConfig(coarse=0.0)).keys() == {"final"}


def test_consistency_asks_every_slot_for_its_own_class_and_trains_only_the_final_decoder() -> None:
    model = build_segmentor(small_benchmark("fcn", memory={"slots": 2}), CLASSES)
    model.memory.memory = torch.randn_like(model.memory.memory)
    model.final_decoder.eval()
    expected = F.cross_entropy(model.classify_memory(), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]))
    loss = consistency_loss(model, 0.5)
    assert loss.item() == pytest.approx(0.5 * expected.item())
    loss.backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"final_decoder"}
