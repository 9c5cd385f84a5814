"""The network and the batches that the rows share: ADE20K, ResNet-50 at stride 8, 150 classes, random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline.config import load_benchmark
from pipeline.config.schema import Benchmark
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor, build_segmentor

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 150
_BLOCK = 16  # px, side of the squares of equal label


def ade_benchmark() -> Benchmark:
    """`params/ade20k-resnet50os8.yaml`, without downloaded weights.

    The memory's gradient is the exact one here: the authors' reading of an overwritten buffer does not affect speed.
    """
    return load_benchmark(ROOT, "ade20k-resnet50os8", {"encoder": {"weights": None}, "memory": {"gradient": "exact"}})


def ade_network(device: torch.device) -> Segmentor:
    """The benchmark's segmentor with a memory that was written before."""
    torch.manual_seed(0)
    model = build_segmentor(ade_benchmark(), CLASSES, pretrained=False)
    model.memory.memory.copy_(torch.rand(model.memory.memory.shape))
    return model.to(device)


def batch(size: int, count: int, device: torch.device, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Images (B, 3, size, size) and labels (B, size, size) in squares, one pixel in twenty ignored."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images.to(device), labels(size, count, classes).to(device)


def labels(size: int, count: int, classes: int) -> Tensor:
    """(B, size, size) int64: squares of 16 pixels, random classes, one pixel in twenty ignored."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randint(classes, (count, -(-size // _BLOCK), -(-size // _BLOCK)), generator=generator)
    maps = coarse.repeat_interleave(_BLOCK, 1).repeat_interleave(_BLOCK, 2)[:, :size, :size].contiguous()
    maps[torch.rand(maps.shape, generator=generator) < 0.05] = IGNORE_INDEX
    return maps
