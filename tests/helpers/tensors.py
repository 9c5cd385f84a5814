"""Random inputs, and a memory updated with them."""

from __future__ import annotations

import torch

from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.models import FeatureMemory


def features(*shape, seed=0):
    """Features as the network makes them: after a ReLU, with exact zeros."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu()


def random_labels(shape, num_classes, ignored=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < ignored] = IGNORE_INDEX
    return labels


def after_update(memory, representations, labels, momentum, strategy):
    """Memory (K, S, C) after `FeatureMemory.update`; arguments as for `dense_memory.dense_update`."""
    num_classes, slots, channels = memory.shape
    module = FeatureMemory(num_classes, channels, 1, slots, strategy=strategy, fuse_context=False)
    module.memory = memory
    module.update(representations, labels, momentum)
    return module.memory
