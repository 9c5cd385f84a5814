"""What a benchmark will cost, estimated before anything runs: arithmetic, GPU memory, time.

The model is built on the meta device, where tensors have shapes and no content, and a training step and an evaluated
image are run through it. Operations and bytes are counted exactly; a time only follows from them by ASSUMED_FLOPS and
is an estimate, never a measurement. Everything is for float32 on one device.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Benchmark
from pipeline.config.schema import OptimizerConfig
from pipeline.datasets import DatasetSpec
from pipeline.datasets.augment import resized
from pipeline.evaluation.averaging import BAND_BYTES
from pipeline.evaluation.views import views_of
from pipeline.models import Segmentor, build_segmentor
from pipeline.training.losses import consistency_loss, pixel_losses

ASSUMED_FLOPS = 20e12  # sustained operations per second: a round number for one data-centre GPU in float32
ASSUMED_IMAGE = (480, 640)  # (height, width) where images differ in size and the dataset names no typical one
LEFT_OUT = "the memory's update, the workspace of convolutions, fragmentation and the CUDA context"


@dataclass(frozen=True)
class TrainingCost:
    """One optimiser step of the whole batch. Bytes, and FLOPs in which a multiply-add counts two."""

    batch_size: int
    iterations: int
    flops: int  # of one step, forward and backward, without the memory's update
    weight_bytes: int  # parameters and buffers
    optimizer_bytes: int
    activation_bytes: int  # kept by the forward pass for the backward pass
    gradient_bytes: int
    peak_bytes: int  # most that a step holds at once: activations, gradients, what operations create and drop

    @property
    def memory_bytes(self) -> int:
        """Expected GPU memory, without what LEFT_OUT names."""
        return self.weight_bytes + self.optimizer_bytes + self.peak_bytes

    @property
    def seconds(self) -> float:
        """Expected time of all iterations, without validation, at ASSUMED_FLOPS."""
        return self.iterations * self.flops / ASSUMED_FLOPS


@dataclass(frozen=True)
class EvaluationCost:
    """Both protocols together."""

    images: int
    batch_size: int  # images that share a forward pass
    size: tuple[int, int]  # (height, width) of every image
    flops: int  # of one image
    weight_bytes: int
    peak_bytes: int  # most that a batch holds at once

    @property
    def memory_bytes(self) -> int:
        """Expected GPU memory, without what LEFT_OUT names."""
        return self.weight_bytes + self.peak_bytes

    @property
    def seconds(self) -> float:
        """Expected time of all images at ASSUMED_FLOPS."""
        return self.images * self.flops / ASSUMED_FLOPS


def build_on_meta(benchmark: Benchmark, spec: DatasetSpec) -> Segmentor:
    """The benchmark's network without content, in training mode."""
    with torch.device("meta"):
        return build_segmentor(benchmark, len(spec.classes), pretrained=False)


def training_cost(benchmark: Benchmark, spec: DatasetSpec, images: Mapping[str, int]) -> TrainingCost:
    """Cost of training `benchmark` on `images` (number per split): forward, losses and backward of one real batch."""
    model, batch = build_on_meta(benchmark, spec).train(), benchmark.schedule.batch_size
    inputs = torch.empty(batch, 3, *benchmark.augmentation.crop, device="meta")
    labels = torch.empty(batch, *benchmark.augmentation.crop, dtype=torch.int64, device="meta")
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # several kept tensors may be views of one
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    live = _LiveBytes()
    with _FusedAttention(), FlopCounterMode(display=False) as counter, live:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = pixel_losses(model(inputs), labels, benchmark.loss)
            if benchmark.loss.consistency > 0:
                terms["consistency"] = consistency_loss(model, benchmark.loss.consistency)
            loss = torch.stack(list(terms.values())).sum()
        activations = sum(storage.nbytes() for storage in kept.values())
        kept.clear()  # the backward pass frees them one by one
        loss.backward()
    gradients = _bytes(p.grad for p in model.parameters() if p.grad is not None)
    used = round(benchmark.dataset.train_fraction * sum(images[s] for s in benchmark.dataset.train_splits))
    return TrainingCost(
        batch_size=batch,
        iterations=benchmark.schedule.epochs * (used // batch),
        flops=counter.get_total_flops(),
        weight_bytes=_bytes([*model.parameters(), *model.buffers()]),
        optimizer_bytes=gradients * _optimizer_copies(benchmark.optimizer),
        activation_bytes=activations,
        gradient_bytes=gradients,
        peak_bytes=live.peak,
    )


def evaluation_cost(benchmark: Benchmark, spec: DatasetSpec, images: int, batch_size: int) -> EvaluationCost:
    """Cost of evaluating `images` images, `batch_size` at once, under both protocols.

    All are taken to have the dataset's size, its typical one, or ASSUMED_IMAGE.
    """
    model, size = build_on_meta(benchmark, spec).eval(), spec.image_size or spec.typical_size or ASSUMED_IMAGE
    inference, live = benchmark.inference, _LiveBytes()
    batch = torch.empty(batch_size, 3, *resized(size, inference.resize), device="meta")
    protocols = {"single_scale": inference.single_scale, "ms_flip": inference.ms_flip}
    with torch.no_grad(), _FusedAttention(), live:
        counted = _CountedForward(model, live)
        views_of(counted, batch, protocols, spec.flip_pairs)  # type: ignore[arg-type]
    return EvaluationCost(
        images=images,
        batch_size=batch_size,
        size=size,
        flops=counted.flops // batch_size,
        weight_bytes=_bytes([*model.parameters(), *model.buffers()]),
        peak_bytes=live.peak + BAND_BYTES,  # label maps come from the views, one band at a time
    )


class _LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that were created inside and still exist, and the most they ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_iter(result):
            if isinstance(item, Tensor):
                self._watch(item.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.add(size)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def add(self, size: int) -> None:
        """Count `size` more bytes."""
        self.now += size
        self.peak = max(self.peak, self.now)


class _FusedAttention(TorchFunctionMode):
    """Attention as a GPU runs it, without the matrix of affinities, which the meta device would write out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value = args
            fused = torch.ops.aten._scaled_dot_product_efficient_attention
            return fused(query, key, value, None, torch.is_grad_enabled())[0]
        return func(*args, **(kwargs or {}))


class _CountedForward:
    """In place of a model: runs one forward pass for each shape of input and only adds up its cost afterwards."""

    def __init__(self, model: nn.Module, live: _LiveBytes) -> None:
        self.model = model
        self.live = live
        self.flops = 0
        self._known: dict[tuple[int, ...], tuple[int, int, torch.Size]] = {}

    def __call__(self, images: Tensor) -> SimpleNamespace:
        """The `logits` of images (B, 3, H, W), without content."""
        if images.shape not in self._known:
            self._known[images.shape] = self._run(images)
        flops, extra, shape = self._known[images.shape]
        self.flops += flops
        self.live.add(extra)
        self.live.now -= extra
        return SimpleNamespace(logits=torch.empty(shape, device="meta"))

    def _run(self, images: Tensor) -> tuple[int, int, torch.Size]:
        """FLOPs, most bytes held at once, and shape of the logits."""
        inside = _LiveBytes()
        with FlopCounterMode(display=False) as counter, inside:
            shape = self.model(images).logits.shape
        return counter.get_total_flops(), inside.peak, shape


def _optimizer_copies(config: OptimizerConfig) -> int:
    """Numbers that the optimiser keeps for each parameter with a gradient."""
    return 2 if config.name == "adamw" else int(config.momentum > 0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
