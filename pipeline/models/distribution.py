"""The distribution memory of MCIBI++: per class a mean and a deviation that scale a fixed random code.

Read and written like `FeatureMemory` (docs/method.md, "MCIBI++"), from which it takes attention and fusion.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.models.attention import AttentionBlock
from pipeline.models.bilinear import resize
from pipeline.models.layers import Activation, conv_bn_act
from pipeline.models.memory import Aggregation, Content, FeatureMemory, Fusion, Sync
from pipeline.models.memory_update import MemoryStatistics


class DistributionMemory(FeatureMemory):
    """Class vectors v_c = mean_c + deviation_c * code_c; code_c (C,) is standard normal and the same in every network.

    forward:  weights   = softmax of the logits over classes            (B, K, h, w)
              retrieved = weights . v                                   (B, C, h, w)
              augmented = CBA3([pixels, attention(pixels -> retrieved)])  (B, C, h, w)

    With context features of the image, `fusion="direct"` returns [augmented, context] (B, 2C, h, w); `"attention"` puts
    attention(context -> augmented) in the place of `augmented`; `"residual"` is that of `FeatureMemory`. `halved` runs
    the attention to the memory at half the resolution.

    The buffer `memory` (K, 2) holds mean and deviation and starts at (0, 1). The codes are not part of the state dict:
    class c draws from a generator seeded with c, which gives the authors' values bit for bit.
    """

    codes: Tensor  # (K, C)
    fuses_context = False

    def __init__(
        self,
        num_classes: int,
        channels: int = 512,
        attention_channels: int = 256,
        aggregation: Aggregation = "soft",
        fuse_context: bool = True,
        fusion: Fusion = "direct",
        activation: Activation = "relu",
        content: Content = "dataset",
        sync: Sync = "statistics",
        halved: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            channels,
            attention_channels,
            aggregation=aggregation,
            strategy="mean",
            fuse_context=fuse_context,
            fusion=fusion,
            activation=activation,
            sync=sync,
        )
        self.content = content
        self.halving = conv_bn_act(channels, channels, 3, activation, stride=2) if halved else None
        self.memory = torch.tensor([0.0, 1.0]).repeat(num_classes, 1)
        self.register_buffer("codes", class_codes(num_classes, channels).to(self.memory.device), persistent=False)
        self.register_load_state_dict_post_hook(_give_content)

    def vectors(self) -> Tensor:
        """(K, 1, C), as `FeatureMemory.vectors`."""
        mean, deviation = self.memory[:, :1], self.memory[:, 1:]  # (K, 1) each
        return (mean + deviation * self.codes)[:, None]

    def written(self) -> Tensor:
        """(K, 1) bool: a class whose mean is still 0 was in no batch."""
        return self.memory[:, :1] != 0

    @torch.no_grad()
    def update_from(self, parts: Sequence[MemoryStatistics], momentum: float) -> None:
        """(mean, deviation) <- (1 - momentum) (mean, deviation) + momentum (those over the channels of the class mean).

        Classes that are absent from the batch keep theirs. The deviation is the unbiased one.
        """
        pooled = self._pooled(parts)
        class_mean = (pooled.plain_sum / pooled.count.clamp(min=1)[..., None]).squeeze(1)  # (K, C)
        batch = torch.stack([class_mean.mean(dim=1), class_mean.std(dim=1)], dim=1).to(self.memory.dtype)  # (K, 2)
        blended = (1 - momentum) * self.memory + momentum * batch
        self.memory = blended.where(pooled.count > 0, self.memory)

    def _attend(self, attention: AttentionBlock, representations: Tensor, retrieved: Tensor) -> Tensor:
        if self.halving is None:
            return attention(representations, retrieved)
        attended = attention(self.halving(representations), self.halving(retrieved))  # (B, C, h/2, w/2)
        return resize(attended, representations.shape[2:])

    def _join(self, representations: Tensor, augmented: Tensor, context: Tensor | None) -> Tensor:
        if self.fusion == "residual" or context is None:
            return super()._join(representations, augmented, context)
        if self.context_attention is not None:
            augmented = self.context_attention(context, augmented)
        return torch.cat([augmented, context], dim=1)  # (B, 2C, h, w)


def class_codes(num_classes: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(K, C) standard normal, on the CPU, without touching the global generator. float64 draws other numbers."""
    seeds = [torch.Generator().manual_seed(index) for index in range(num_classes)]
    return torch.cat([torch.randn(1, channels, generator=seed, dtype=dtype, device="cpu") for seed in seeds])


def _give_content(memory: DistributionMemory, _: object) -> None:
    """After weights were loaded: the codes of a network that was built without content are not in any file."""
    if memory.codes.is_meta and not memory.memory.is_meta:
        memory.codes = class_codes(*memory.codes.shape).to(memory.memory)
