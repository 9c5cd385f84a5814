"""Does a trained network use its memory? Label maps of the network while one thing about the memory is changed.

Nothing is trained. Every probe reads the same pixel representations, coarse logits and context, which are computed once
for all of them. The difference between `final` and a probe is what the network gains from the part that is changed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.schema import InferenceConfig, RuntimeConfig
from pipeline.datasets.loader import EvalSample
from pipeline.evaluation.evaluate import Evaluated, evaluate_split
from pipeline.evaluation.views import predict
from pipeline.models import FeatureMemory, Segmentor, SegmentorOutput
from pipeline.models.attention import AttentionBlock
from pipeline.models.segmentor import HeadInput
from pipeline.results.record import PROBES
from pipeline.runtime.distributed import gather_on_main


def probes_of(memory: FeatureMemory) -> tuple[str, ...]:
    """The probes that mean something for this memory, in the order of PROBES."""
    reading = {"oracle", "uniform", "shuffled", "memory_mean"}
    absent = {"batch": {"zero", "random"}, "none": {"zero", "random"} | reading}.get(memory.content, set())
    absent |= {"context_mean"} if memory.context_attention is None else set()
    return tuple(name for name in PROBES if name not in absent)


def probe_split(
    model: Segmentor,
    table: pd.DataFrame,
    inference: InferenceConfig,
    device: torch.device,
    runtime: RuntimeConfig,
    progress: str,
) -> tuple[Evaluated, dict[str, float]] | None:
    """Counts by probe over the rows of a labelled split, and the mean entropy of each attention over its maximum.

    At single scale, without mirrored views. Every rank runs this on its share; the others than the main one get None.
    """
    prober = _Prober(model, inference)
    classes = model.memory.memory.shape[0]
    resize = inference.resized(inference.single_scale)
    found = evaluate_split(model, table, resize, prober.classify, classes, device, runtime, progress=progress)
    entropies = gather_on_main(prober.entropies)
    if found is None or entropies is None:
        return None
    values = {name: [value for one in entropies for value in one.get(name, ())] for name in prober.entropies}
    return found, {name: math.fsum(some) / len(some) for name, some in values.items()}  # in any order of ranks


class _Prober:
    """Label maps by probe, and the mean entropy of each attention in every forward pass of the unchanged network."""

    def __init__(self, model: Segmentor, inference: InferenceConfig) -> None:
        self.model, self.memory = model, model.memory
        # Labels travel with the image as a fourth channel, so that windows cut both alike; scales would blend them.
        self.protocol = {"probe": inference.single_scale.model_copy(update={"scales": (1.0,), "flip": False})}
        attention = {"memory": list(self.memory.memory_attention), "context": [self.memory.context_attention]}
        self.attention = {name: [one for one in blocks if one is not None] for name, blocks in attention.items()}
        self.entropies: dict[str, list[float]] = {name: [] for name, blocks in self.attention.items() if blocks}

    def classify(self, images: Tensor, samples: Sequence[EvalSample]) -> dict[str, Tensor]:
        """Images (B, 3, h, w) and their samples to label maps (B, H, W) int64 by probe."""
        labels = torch.stack([torch.from_numpy(sample.label) for sample in samples]).to(images)[:, None]
        labels = F.interpolate(labels, images.shape[2:], mode="nearest-exact")  # (B, 1, h, w)
        both = torch.cat([images, labels], dim=1)
        shared: list[tuple[HeadInput, Tensor]] = []  # by forward pass: each probe asks for the same ones in order
        maps = {}
        for name in probes_of(self.memory):
            network = partial(self._network, name, shared, count())
            maps[name] = predict(network, both, self.protocol, samples[0].size)["probe"]
        return maps

    def _network(
        self, probe: str, shared: list[tuple[HeadInput, Tensor]], turn: Iterator[int], both: Tensor
    ) -> SegmentorOutput:
        """One forward pass of one probe, of images with labels (B, 4, h, w)."""
        position = next(turn)
        if position == len(shared):
            inputs = self.model.head_input(both[:, :3].contiguous(memory_format=torch.channels_last))
            shared.append((inputs, class_shares(both[:, 3].long(), inputs.coarse)))
        head, truth = shared[position]
        weights = self.model.class_weights(head)  # (B, K, h, w)
        if probe == "coarse":
            return SegmentorOutput(head.coarse, head.coarse, (), None)
        if probe == "oracle":
            weights = torch.where(truth.sum(dim=1, keepdim=True) > 0, truth, weights)
        elif probe == "uniform":
            weights = torch.full_like(weights, 1 / weights.shape[1])
        elif probe == "shuffled":
            weights = weights.roll(1, dims=1)
        with self._changed(probe):
            logits = self.model.read(head, weights)
        return SegmentorOutput(logits, head.coarse, (), None)

    @contextlib.contextmanager
    def _changed(self, probe: str) -> Iterator[None]:
        """The memory with other vectors or attention, or with its entropies noted."""
        vectors, hooks = self.memory.vectors(), []
        if probe == "final":
            hooks = [(block, partial(self._note, name)) for name, blocks in self.attention.items() for block in blocks]
        elif probe in ("memory_mean", "context_mean"):
            hooks = [(block, _image_mean) for block in self.attention[probe.removesuffix("_mean")]]
        elif probe in ("zero", "random"):
            self.memory.vectors = partial(torch.zeros_like if probe == "zero" else _noise_like, vectors)
        with contextlib.ExitStack() as changes:
            changes.callback(vars(self.memory).pop, "vectors", None)  # the method again
            for block, hook in hooks:
                changes.enter_context(block.register_forward_hook(hook))
            yield

    def _note(self, name: str, block: AttentionBlock, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        self.entropies[name].extend(block.entropy(*inputs).float().mean(dim=(1, 2)).tolist())


def class_shares(labels: Tensor, like: Tensor) -> Tensor:
    """Share of each class in the valid pixels of each cell of a coarser grid, zero where there are none.

    labels: (B, H, W) int64, ignored pixels have no share. like: (B, K, h, w), whose shape and dtype it returns.
    """
    batch, classes, height, width = like.shape
    rows = torch.arange(labels.shape[1], device=labels.device) * height // labels.shape[1]  # (H,) row of the grid
    columns = torch.arange(labels.shape[2], device=labels.device) * width // labels.shape[2]
    cells = (rows[:, None] * width + columns).expand_as(labels)  # (B, H, W)
    image = torch.arange(batch, device=labels.device)[:, None, None]
    valid = labels < classes
    index = (image * height * width + cells) * classes + labels
    counts = index[valid].bincount(minlength=batch * height * width * classes).view(batch, height, width, classes)
    shares = counts / counts.sum(dim=3, keepdim=True).clamp(min=1)
    return shares.movedim(3, 1).to(like.dtype)


def _image_mean(_: nn.Module, __: object, output: Tensor) -> Tensor:
    return output.mean(dim=(2, 3), keepdim=True).expand_as(output)


def _noise_like(vectors: Tensor) -> Tensor:
    """Rectified normal noise (K, S, C), of the mean length of the given vectors; always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(vectors.shape, generator=generator).relu().to(vectors)
    return noise * (vectors.norm(dim=-1).mean() / noise.norm(dim=-1).mean())
