"""Losses: which terms a model pays, and their edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.model_benchmarks import small_benchmark
from torch.nn import functional as F

from pipeline.config.schema import LossConfig
from pipeline.models import SegmentorOutput, build_segmentor
from pipeline.training.losses import (
    consistency_loss,
    median_frequency,
    pixel_cross_entropy,
    pixel_losses,
    valid_pixels,
)

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


def test_class_weights_give_the_weighted_mean_and_its_gradient() -> None:
    weights = torch.tensor([0.5, 1.0, 4.0, 0.25, 2.0])
    banded, whole = (logits().requires_grad_() for _ in range(2))
    full = F.interpolate(whole, size=(16, 24), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(full, labels(), weights, ignore_index=255)
    found = pixel_cross_entropy(banded, labels(), class_weights=weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    found.backward()
    torch.testing.assert_close(banded.grad, whole.grad)


def test_parts_of_a_batch_with_class_weights_are_parts_of_one_mean() -> None:
    weights = torch.tensor([0.5, 1.0, 4.0, 0.25, 2.0])
    valid = valid_pixels(labels(), weights)
    parts = [pixel_cross_entropy(logits()[i : i + 1], labels()[i : i + 1], valid, weights) for i in range(2)]
    torch.testing.assert_close(sum(parts), pixel_cross_entropy(logits(), labels(), class_weights=weights))


def test_median_frequency_weighs_a_class_by_the_images_that_contain_it() -> None:
    counts = np.array([[60, 40, 0, 0], [90, 0, 10, 0]])
    # frequencies: 150 of 200, 40 of 100, 10 of 100; the fourth class is nowhere
    assert median_frequency(counts).tolist() == pytest.approx([0.4 / 0.75, 1.0, 4.0, 1.0])


@pytest.mark.parametrize("weights", [None, torch.ones(CLASSES)], ids=["alike", "weighted"])
def test_batch_without_a_valid_pixel_costs_nothing_and_gives_no_nan(weights: torch.Tensor | None) -> None:
    leaf = logits().requires_grad_()
    loss = pixel_cross_entropy(leaf, torch.full((2, 16, 24), 255), class_weights=weights)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_terms_are_weighted_and_absent_for_absent_maps_and_zero_weights() -> None:
    output = SegmentorOutput(logits(0), logits(1), (logits(2),), None)
    terms = pixel_losses(output, labels(), LossConfig(final=1.0, coarse=0.4, auxiliary=0.2))
    assert terms.keys() == {"final", "coarse", "auxiliary"}
    assert terms["coarse"].item() == pytest.approx(0.4 * pixel_cross_entropy(logits(1), labels()).item())
    assert pixel_losses(output._replace(auxiliary=()), labels(), LossConfig(coarse=0.0)).keys() == {"final"}
    context = pixel_losses(output._replace(context=logits(3)), labels(), LossConfig(context=0.5))["context"]
    assert context.item() == pytest.approx(0.5 * pixel_cross_entropy(logits(3), labels()).item())


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
