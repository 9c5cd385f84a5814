"""Packing: convolutions on the CPU read their weights in another layout and compute the same."""

from __future__ import annotations

import pytest
import torch
from model_benchmarks import small_benchmark
from test_folding import with_statistics
from torch import nn

from pipeline.evaluation.folding import folded
from pipeline.evaluation.packing import optimised
from pipeline.models import build_segmentor

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")


def network() -> nn.Module:
    """Depthwise, dilated and 1x1 convolutions."""
    return with_statistics(build_segmentor(small_benchmark("deeplabv3", {}), 20, pretrained=False))


def test_packed_network_keeps_its_logits_at_every_size() -> None:
    model = network()
    plain, packed = folded(model), optimised(model, "float32")
    assert not [name for name, module in packed.named_modules() if type(module) is nn.Conv2d]
    for size in ((64, 64), (48, 80), (96, 40)):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected, found = plain(images).logits, packed(images).logits
        assert (found - expected).abs().max() < 1e-5 * expected.std()


def test_other_precisions_stay_unpacked() -> None:
    assert [module for module in optimised(network(), "bfloat16").modules() if type(module) is nn.Conv2d]
