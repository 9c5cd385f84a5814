"""The network and the batches that the rows share: ADE20K, ResNet-50 at stride 8, 150 classes, random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.toolbox import twins
from pipeline.config import load_benchmark
from pipeline.config.schema import Benchmark
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import Segmentor, build_segmentor

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 150
_BLOCK = 16  # px, side of the squares of equal label


def ade_benchmark(row: str = "ade20k-resnet50os8", **memory: object) -> Benchmark:
    """A row of params/ without downloaded weights and without dropout, which two networks would draw differently."""
    return load_benchmark(ROOT, row, {"encoder": {"weights": None}, "segmentor": {"dropout": 0.0}, "memory": memory})


def ade_network(device: torch.device) -> Segmentor:
    """Ours alone, its memory written before, with the exact gradient that compiled training needs."""
    torch.manual_seed(0)
    model = build_segmentor(ade_benchmark(gradient="exact"), CLASSES, pretrained=False)
    model.memory.memory.copy_(torch.rand(model.memory.memory.shape))
    return model.to(device)


def ade_twins(device: torch.device, row: str = "ade20k-resnet50os8") -> tuple[nn.Module, Segmentor]:
    """The authors' network and ours with equal weights."""
    theirs, ours = twins(ade_benchmark(row), CLASSES)
    return theirs.to(device), ours.to(device)


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
