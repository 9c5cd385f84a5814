"""Folding: the evaluated network computes what the trained one does, and leaves it alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.project import ROOT
from torch import Tensor, nn

from pipeline.config import load_benchmark
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.models import build_segmentor
from pipeline.runtime.device import set_kernels


class Network(nn.Module):
    """Two convolutions with batch norm, and one norm that no convolution precedes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.last_norm = nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5)
        self.free_norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> SimpleNamespace:
        maps = self.norm(self.first(images)).relu()
        return SimpleNamespace(logits=self.last_norm(self.second(self.free_norm(maps))))


def with_statistics(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(1 + 0.5 * torch.rand(module.num_features, generator=generator))
    return model.eval()


def test_norms_that_follow_a_convolution_disappear_and_logits_stay() -> None:
    model = with_statistics(Network())
    image = torch.randn(2, 3, 20, 30)
    fast = fold_batch_norm(model)
    assert [name for name, m in fast.named_modules() if isinstance(m, nn.BatchNorm2d)] == ["free_norm"]
    with torch.no_grad():
        torch.testing.assert_close(fast(image).logits, model(image).logits, rtol=1e-4, atol=1e-5)


def test_the_model_itself_is_untouched() -> None:
    model = with_statistics(Network()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold_batch_norm(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_convolution_with_two_readers_is_an_error_not_another_result() -> None:
    class Forked(Network):
        def forward(self, images: Tensor) -> SimpleNamespace:
            maps = self.first(images)
            return SimpleNamespace(logits=self.norm(maps) + maps)

    with pytest.raises(RuntimeError, match="changed the logits"):
        fold_batch_norm(with_statistics(Forked()))


@pytest.mark.usefixtures("kernels_as_before")
def test_it_is_compared_in_full_precision_where_tf32_is_on() -> None:
    class Watched(Network):
        def forward(self, images: Tensor) -> SimpleNamespace:
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
            return super().forward(images)

    set_kernels(torch.device("cuda"), "tf32")
    fold_batch_norm(with_statistics(Watched()))
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (True, True)


def test_a_network_that_reads_one_size_is_folded_at_that_size() -> None:
    class Fixed(Network):
        def forward(self, images: Tensor) -> SimpleNamespace:
            assert images.shape[2:] == (24, 40)
            return super().forward(images)

    model = with_statistics(Fixed())
    assert not isinstance(fold_batch_norm(model, (24, 40)).norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    "row", ["ade20k-resnet50os8", "ade20k-resnest101os8", "cityscapes-hrnetv2w48", "lip-resnet50os8"]
)
def test_published_networks_keep_their_logits(row: str) -> None:
    thin = {"segmentor": {"channels": 16, "attention_channels": 8}, "encoder": {"weights": None}}
    model = with_statistics(build_segmentor(load_benchmark(ROOT, row, thin), 20, pretrained=False))
    fast = fold_batch_norm(model)  # compares them itself
    left = [name for name, module in fast.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.startswith("auxiliary.") for name in left)  # not part of evaluation
