"""The loss that never holds the upsampled logits: the numbers and the gradients of the one that does."""

from __future__ import annotations

import pytest
import torch
from helpers.live_bytes import LiveBytes
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.banded_loss import summed_cross_entropy

CLASSES = 150  # so many that each picture below takes several bands


def pictures(size: tuple[int, int] = (130, 97), low: tuple[int, int] = (17, 12)) -> tuple[Tensor, Tensor]:
    """Logits (2, K, *low) in channels last, as a network makes them, and labels (2, *size), one in ten ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, CLASSES, *low, generator=generator)
    labels = torch.randint(CLASSES, (2, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return logits.contiguous(memory_format=torch.channels_last), labels


def whole(logits: Tensor, labels: Tensor) -> Tensor:
    """The same in one piece, its sums in float64."""
    full = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, labels, ignore_index=255, reduction="sum")


def require_equal(logits: Tensor, labels: Tensor, tolerance: float = 2e-5) -> None:
    """Losses and gradients of both, for an upstream gradient that is not one.

    Where a pixel falls between two logits is float32 in both, which is what the tolerance is for.
    """
    leaves = [logits.detach().requires_grad_() for _ in range(2)]
    losses = [0.4 * loss(leaf, labels) for loss, leaf in zip((summed_cross_entropy, whole), leaves, strict=True)]
    for loss in losses:
        loss.backward()
    (banded, expected), (found, gradient) = losses, (leaf.grad for leaf in leaves)
    assert banded.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.dtype == logits.dtype
    assert (found - gradient).norm() <= tolerance * gradient.norm()


@pytest.mark.parametrize("low", [(17, 12), (130, 97), (1, 1), (200, 150)], ids=["up", "equal", "constant", "down"])
def test_loss_and_gradient_are_those_of_the_upsampled_logits(low: tuple[int, int]) -> None:
    require_equal(*pictures(low=low))


def test_a_void_band_adds_nothing() -> None:
    logits, labels = pictures()
    labels[:, 30:90] = 255
    require_equal(logits, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_floats_are_only_rounded_at_the_ends(dtype: torch.dtype) -> None:
    logits, labels = pictures()
    require_equal(logits.to(dtype), labels, tolerance=1e-3)


def test_autocast_does_not_reach_inside() -> None:
    logits, labels = pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = summed_cross_entropy(logits, labels)
    assert torch.equal(inside, summed_cross_entropy(logits, labels))


def test_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(3, (2, 7, 5), generator=generator)
    labels[0, :2] = 255
    assert torch.autograd.gradcheck(lambda leaf: summed_cross_entropy(leaf, labels), logits)


def test_a_second_derivative_is_an_error_not_a_constant() -> None:
    logits, labels = pictures()
    leaf = logits.requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(summed_cross_entropy(leaf, labels), leaf, create_graph=True)


@pytest.mark.parametrize("stray", [CLASSES, 254, -1])
def test_a_label_that_is_no_class_is_an_error(stray: int) -> None:
    logits, labels = pictures()
    labels[1, 100, 50] = stray
    with pytest.raises(IndexError, match="out of bounds"):
        summed_cross_entropy(logits, labels)


def test_it_holds_a_fraction_of_the_upsampled_logits() -> None:
    logits, labels = pictures(size=(512, 256), low=(64, 32))
    live = LiveBytes()
    with live:
        summed_cross_entropy(logits.requires_grad_(), labels).backward()
    assert live.peak < 0.25 * 4 * CLASSES * labels.numel()
