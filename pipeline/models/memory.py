"""The feature memory: dataset-level class representations that every pixel can consult.

Reading is `FeatureMemory.forward`: aggregation weighted by the coarse segmentation, then attention (docs/method.md,
"Architecture"). Writing is `FeatureMemory.update`, without gradient (docs/method.md, "Memory update"). In a model of
your own, with R the pixel representations and P the context features of the image, both (B, C, h, w), training is

    memory = FeatureMemory(num_classes, channels=C)
    augmented = memory(R, coarse_logits, P)          # in place of R, before the classifier
    memory.update(R, labels, momentum)               # after the forward pass, labels (B, H, W) at full resolution
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.models.attention import AttentionBlock
from pipeline.models.layers import Activation, conv_bn_act
from pipeline.models.memory_update import MemoryStatistics, Strategy, blend, class_statistics
from pipeline.runtime.distributed import ranks, sum_over_ranks

Aggregation = Literal["soft", "hard"]
Gradient = Literal["exact", "updated"]
Content = Literal["dataset", "random", "batch", "none"]
Fusion = Literal["attention", "direct", "residual"]
Sync = Literal["statistics", "per_rank_mean"]


class FeatureMemory(nn.Module):
    """S vectors of C channels for each of K classes; read with attention, written by `update`, never by gradient.

    forward:  weights   = softmax of the coarse logits over classes       (B, K, h, w)
              retrieved = weights . memory, one map per slot              (B, C, h, w)
              attended  = attention(pixels -> retrieved)                  (B, C, h, w)
              augmented = CBA3([pixels, attended])                        (B, C, h, w)
              and, with context features of the image itself:
              output    = CBA3([attention(pixels -> context), augmented]) (B, C, h, w)

    That is `fusion="attention"`, the method. `"direct"` concatenates the context itself in place of attention to it.
    `"residual"` is context + gain * augmented (pixels + gain * augmented without context), with a scalar gain that is
    learned from 0: at first the network without memory.

    The buffer `memory` (K, S, C) starts at zero and is part of the state dict. An all-zero slot has not been written
    yet; no other flag exists, as in the published files.

    Controls keep the module and change what it reads: `content="random"` fills the buffer with rectified normal noise,
    as fresh pixel representations are, and never updates it; `content="batch"` leaves it at zero and reads the class
    means of the current representations (see `_batch_means`); `content="none"` reads nothing and has no attention to
    it, augmented = CBA3([pixels, pixels]): the module's depth alone.
    """

    memory: Tensor
    fuses_context = True  # here, and not in the final decoder

    def __init__(
        self,
        num_classes: int,
        channels: int = 512,
        attention_channels: int = 256,
        slots: int = 1,
        aggregation: Aggregation = "soft",
        strategy: Strategy = "cosine",
        fuse_context: bool = True,
        fusion: Fusion = "attention",
        activation: Activation = "relu",
        gradient: Gradient = "exact",
        content: Content = "dataset",
        sync: Sync = "statistics",
    ) -> None:
        super().__init__()
        if slots > 1 and strategy != "cosine":
            raise PipelineError(
                f"memory.slots: {slots} slots, but only the cosine decides which slot a pixel belongs to; set "
                "memory.strategy to cosine"
            )
        self.aggregation, self.strategy, self.gradient = aggregation, strategy, gradient
        self.content, self.sync, self.fuse_context, self.fusion = content, sync, fuse_context, fusion
        empty = torch.zeros(num_classes, slots, channels)
        self.register_buffer("memory", torch.randn_like(empty).relu() if content == "random" else empty)

        def attention() -> AttentionBlock:
            return AttentionBlock(channels, attention_channels, activation)

        self.memory_attention = nn.ModuleList(attention() for _ in range(slots if content != "none" else 0))
        self.slot_fusion = conv_bn_act(slots * channels, channels, 1, activation) if slots > 1 else nn.Identity()
        self.memory_fusion = conv_bn_act(2 * channels, channels, 3, activation)
        self.context_attention = attention() if fuse_context and fusion == "attention" else None
        concatenated = fuse_context and fusion != "residual" and self.fuses_context
        self.context_fusion = conv_bn_act(2 * channels, channels, 3, activation) if concatenated else None
        self.gain = nn.Parameter(torch.zeros(())) if fusion == "residual" else None

    def forward(self, representations: Tensor, coarse_logits: Tensor, context: Tensor | None = None) -> Tensor:
        """Augment pixel representations (B, C, h, w) with the memory; returns (B, C, h, w).

        `coarse_logits` (B, K, h, w) determine which classes a pixel consults; soft aggregation passes gradient to them.
        `context` (B, C, h, w) is required exactly when the module was built with `fuse_context`.
        """
        return self.read(representations, self.class_weights(coarse_logits), context)

    def read(self, representations: Tensor, weights: Tensor, context: Tensor | None = None) -> Tensor:
        """`forward` with the weights (B, K, h, w) of the classes given; they sum to 1 over classes."""
        if (context is None) == self.fuse_context:
            raise ValueError("context features must be given exactly when the memory was built with fuse_context")
        return self._join(representations, self._augment(representations, weights), context)

    def vectors(self) -> Tensor:
        """The class vectors that are read, (K, S, C)."""
        return self.memory

    def written(self) -> Tensor:
        """Which vectors training has written, (K, S) bool."""
        return (self.memory != 0).any(dim=-1)

    def _augment(self, representations: Tensor, weights: Tensor) -> Tensor:
        """Pixel representations (B, C, h, w) with what they read from the memory, (B, C, h, w)."""
        attended = [
            self._attend(attention, representations, self._retrieve(weights, slot, representations))  # (B, C, h, w)
            for slot, attention in enumerate(self.memory_attention)
        ]
        from_memory = self.slot_fusion(torch.cat(attended or [representations], dim=1))  # (B, C, h, w)
        return self.memory_fusion(torch.cat([representations, from_memory], dim=1))  # (B, C, h, w)

    def _attend(self, attention: AttentionBlock, representations: Tensor, retrieved: Tensor) -> Tensor:
        """Attention from pixels to what they retrieved, (B, C, h, w) each."""
        return attention(representations, retrieved)

    def _join(self, representations: Tensor, augmented: Tensor, context: Tensor | None) -> Tensor:
        """`augmented` with the context within the image, (B, C, h, w) each."""
        if self.fusion == "residual":
            return (representations if context is None else context) + self.gain * augmented
        if context is None:
            return augmented
        from_image = self.context_attention(representations, context) if self.fusion == "attention" else context
        return self.context_fusion(torch.cat([from_image, augmented], dim=1))  # (B, C, h, w)

    def class_weights(self, coarse_logits: Tensor) -> Tensor:
        """(B, K, h, w) logits -> (B, K, h, w) weights that sum to 1 over classes; `hard` is the one-hot argmax."""
        if self.aggregation == "soft":
            return coarse_logits.softmax(dim=1)
        one_hot = F.one_hot(coarse_logits.argmax(dim=1), coarse_logits.shape[1])  # (B, h, w, K)
        return one_hot.movedim(-1, 1).to(coarse_logits.dtype)

    def _retrieve(self, weights: Tensor, slot: int, representations: Tensor) -> Tensor:
        """Each pixel's mix of one slot of all classes: weights (B, K, h, w) to (B, C, h, w)."""
        if self.content == "batch":
            return mix(weights, self._batch_means(weights.detach(), representations.detach()))
        if self.gradient == "updated" and self.training:
            return _RetrieveWithLateGradient.apply(weights, self, slot)
        return mix(weights, self.vectors()[:, slot].to(weights.dtype))

    def _batch_means(self, weights: Tensor, representations: Tensor) -> Tensor:
        """Mean representation of each class, pixels weighted by `weights` (B, K, h, w): without gradient, as a memory.

        Of the whole batch (each rank's own part of it) in training, (1, 1, K, C). Of each image in evaluation,
        (B, 1, K, C): a label map must not depend on which images share a forward pass.
        """
        sums = torch.einsum("bkhw,bchw->bkc", weights, representations)  # (B, K, C)
        mass = weights.sum(dim=(2, 3))[..., None]  # (B, K, 1)
        if self.training:
            sums, mass = sums.sum(dim=0, keepdim=True), mass.sum(dim=0, keepdim=True)
        return (sums / mass.clamp(min=1e-6))[:, None]

    @property
    def learns(self) -> bool:
        """Whether training updates the memory; the controls are not updated."""
        return self.content == "dataset"

    def update(self, representations: Tensor, labels: Tensor, momentum: float) -> None:
        """Memory <- (1 - momentum) memory + momentum batch, with the pixels of one mini-batch; after the forward pass.

        representations: (B, C, h, w) as the forward pass used them, at feature resolution.
        labels: (B, H, W) int64 at full resolution; IGNORE_INDEX pixels are skipped.
        Raises PipelineError for a label that is neither a class nor ignored, RuntimeError in evaluation mode.
        """
        self.update_from([self.statistics(representations, labels)], momentum)

    def statistics(self, representations: Tensor, labels: Tensor) -> MemoryStatistics:
        """What one part of a batch contributes to `update_from`; arguments and errors as for `update`."""
        if not self.training:
            raise RuntimeError("the memory is frozen in evaluation mode; call .train() before updating it")
        return class_statistics(self.vectors(), representations, labels, self.strategy)

    @torch.no_grad()
    def update_from(self, parts: Sequence[MemoryStatistics], momentum: float) -> None:
        """`update` with a batch in several parts, one after the other on this rank and, if there are more, on others.

        With `sync="statistics"` all ranks' pixels are pooled and the memory is that of a single device. With
        `"per_rank_mean"`, the authors' rule, every rank blends its own pixels, and `average_over_ranks` follows.
        """
        # A new tensor, not an in-place write: the pending backward pass still needs the memory that the forward read.
        self.memory = blend(self.memory, self._pooled(parts), momentum)

    def _pooled(self, parts: Sequence[MemoryStatistics]) -> MemoryStatistics:
        """The statistics of all parts and, unless the memories are averaged later, of all ranks."""
        pooled = MemoryStatistics(*(sum(tensors) for tensors in zip(*parts, strict=True)))
        if self.sync == "statistics":
            sum_over_ranks(*pooled)
        return pooled

    @torch.no_grad()
    def average_over_ranks(self) -> None:
        """With `sync="per_rank_mean"`: the mean of the ranks' memories, taken after the backward pass."""
        if self.sync == "per_rank_mean" and ranks().world > 1:
            mean = self.memory / ranks().world
            sum_over_ranks(mean)
            self.memory = mean


class _RetrieveWithLateGradient(torch.autograd.Function):
    """weights . memory, whose gradient uses the memory as it is when the backward pass comes.

    The authors overwrite the memory in place between the two passes, unnoticed by autograd (docs/method.md, "Where the
    authors' code departs from the paper"). The first gradient's norm differs by a quarter.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, module: FeatureMemory, slot: int) -> Tensor:
        """weights (B, K, h, w) to (B, C, h, w)."""
        ctx.module, ctx.slot = module, slot
        return mix(weights, module.memory[:, slot].to(weights.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """gradient (B, C, h, w) to (B, K, h, w)."""
        return mix(gradient, ctx.module.memory[:, ctx.slot].to(gradient.dtype).T), None, None


def mix(maps: Tensor, matrix: Tensor) -> Tensor:
    """maps (B, I, h, w) times matrix (I, O), or one per image (B, 1, I, O), over the channels: (B, O, h, w)."""
    return (maps.movedim(1, -1).contiguous() @ matrix).movedim(-1, 1).contiguous()
