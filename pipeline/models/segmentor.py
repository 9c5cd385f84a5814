"""The whole network: encoder, context within the image, feature memory, decoders (docs/method.md, "Architecture")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.config.schema import Benchmark, Cascade
from pipeline.errors import PipelineError
from pipeline.models.bilinear import resize
from pipeline.models.context import FRAMEWORKS, ContextInput, HeadShape, MemoryPyramid, framework_options
from pipeline.models.distribution import DistributionMemory
from pipeline.models.encoder import build_encoder
from pipeline.models.layers import ChannelNorm, conv_bn_act, decoder, halving
from pipeline.models.memory import FeatureMemory

# Keys of `memory` that its module takes.
_OF_BOTH = {"aggregation", "content", "fusion", "sync"}
_OF_FEATURES = _OF_BOTH | {"slots", "strategy", "gradient"}
_CASCADE = (2.0, 1.5)  # weights of the current pass and of the earlier one


class SegmentorOutput(NamedTuple):
    """What a forward pass returns; all maps float, at feature resolution (h, w), never upsampled here."""

    logits: Tensor  # (B, K, h, w) final logits
    coarse: Tensor | None  # (B, K, h, w) stage-one logits, with memory only
    auxiliary: tuple[Tensor, ...]  # (B, K, h_i, w_i) logits of each auxiliary head, in training mode only
    representations: Tensor | None  # (B, C, h, w) what the memory is updated with, with memory only
    context: Tensor | None = None  # (B, K, h, w) logits of the context alone, with a distribution memory only


class HeadInput(NamedTuple):
    """What the decoders and the memory work on, all (B, ..., h, w) float; parts that a network lacks are None."""

    representations: Tensor | None  # (B, C, h, w) pixel representations
    coarse: Tensor | None  # (B, K, h, w) stage-one logits, with memory only
    context: Tensor | None  # (B, C, h, w) context within the image
    auxiliary: tuple[Tensor, ...]  # (B, K, h_i, w_i) logits of the auxiliary heads that ran
    context_logits: Tensor | None  # (B, K, h, w) of the context alone
    finer: tuple[Tensor, ...]  # (B, C_i, h_i, w_i) maps of the encoder for the pyramid, finest first


class Segmentor(nn.Module):
    """One graph for all frameworks, X being the encoder's last map:

        with memory     R = pixel_representation(X), coarse = coarse_decoder(R), P = context(X or R and coarse),
                        logits = final_decoder(memory(R, coarse, P))
        distribution    the same; the classes are weighted by context_decoder(P) where there is a P, and a pyramid may
                        carry what the memory returns up to finer maps before the final decoder
        without         logits = final_decoder(P), or of R where the framework has no context (FCN)

    Parts that a configuration does not have are None.
    """

    def __init__(self, benchmark: Benchmark, num_classes: int, pretrained: bool) -> None:
        super().__init__()
        config, memory = benchmark.segmentor, benchmark.memory
        options, framework = framework_options(config), FRAMEWORKS[config.framework]
        self.encoder = build_encoder(benchmark.encoder, pretrained)
        widths, channels, activation = tuple(self.encoder.out_channels), config.channels, config.activation
        shape = HeadShape(widths[-1], channels, config.attention_channels, activation, widths)
        wants_context = framework.context and (memory is None or memory.context_within_image)
        context = framework.context(shape, options) if wants_context else None
        _check_parts(benchmark, framework.context_input, context, widths)

        self.feature_norms = nn.ModuleList(map(ChannelNorm, widths[1:])) if config.feature_norm else None
        self.downsample = halving(widths[-1], activation) if config.downsample else None
        self.context, self.context_input = context, framework.context_input
        pixels = memory is not None or framework.context_input in ("none", "objects")
        self.pixel_representation = conv_bn_act(widths[-1], channels, 3, activation) if pixels else None
        # The published layouts: CBA1 after the memory, CBA3 for plain FCN, the classifier alone after a context module.
        final = {"kernel_size": 3, "blocks": 0 if context else 1}
        self.coarse_decoder = self.memory = self.context_decoder = self.pyramid = None
        width = channels  # of the map that the final decoder reads
        if memory is not None:
            final = final if memory.fusion == "residual" else {"kernel_size": memory.head.final_kernel}
            self.coarse_decoder = decoder(channels, channels, num_classes, config, memory.head.coarse_kernel)
            self.memory = _build_memory(benchmark, num_classes, fuse_context=context is not None)
            if memory.kind == "distribution" and context is not None:
                self.context_decoder = decoder(channels, channels, num_classes, config, memory.head.context_kernel)
                width = channels if memory.fusion == "residual" else 2 * channels
            if memory.head.pyramid is not None:
                self.pyramid = MemoryPyramid(widths, width, memory.head.pyramid, activation)
                width = self.pyramid.out_channels
        self.final_decoder = decoder(width, channels, num_classes, config, **final)
        self.weights_from_context = self.context_decoder is not None and memory.head.weights_from == "context"
        self.auxiliary = nn.ModuleList(
            decoder(widths[head.feature], head.channels, num_classes, config, 3, head.convs, head.upsample)
            for head in config.auxiliary
        )
        self.auxiliary_features = tuple(head.feature for head in config.auxiliary)

    def forward(self, images: Tensor, earlier: Tensor | None = None, cascade: Cascade = "mean") -> SegmentorOutput:
        """Normalised RGB float32 (B, 3, H, W) to logits; gradient reaches every part but the memory itself.

        earlier: (B, K, h', w') maps of an earlier pass, which weight the classes of the memory together with this one's
        logits (docs/method.md, "MCIBI++").
        """
        head = self.head_input(images)
        auxiliary = head.auxiliary if self.training else ()
        if self.memory:
            logits = self.read(head, self.class_weights(head, earlier, cascade))
            return SegmentorOutput(logits, head.coarse, auxiliary, head.representations, head.context_logits)
        pixels = head.representations if head.context is None else head.context
        return SegmentorOutput(self.final_decoder(pixels), None, auxiliary, None)

    def class_weights(self, head: HeadInput, earlier: Tensor | None = None, cascade: Cascade = "mean") -> Tensor:
        """(B, K, h, w) by which each pixel weights the classes of the memory; they sum to 1. Arguments of `forward`."""
        logits = head.context_logits if self.weights_from_context else head.coarse
        if earlier is not None:
            divisor = sum(_CASCADE) - (1 if cascade == "authors" else 0)
            logits = (_CASCADE[0] * logits + _CASCADE[1] * resize(earlier, logits.shape[2:])) / divisor
        return self.memory.class_weights(logits)

    def read(self, head: HeadInput, weights: Tensor) -> Tensor:
        """Final logits (B, K, h, w) when the classes of the memory have these weights (B, K, h, w)."""
        augmented = self.memory.read(head.representations, weights, head.context)  # (B, C or 2C, h, w)
        return self.final_decoder(self.pyramid([*head.finer, augmented]) if self.pyramid else augmented)

    def head_input(self, images: Tensor) -> HeadInput:
        """Everything up to the memory, of normalised RGB float32 (B, 3, H, W)."""
        maps = self._feature_maps(images)
        features = maps[-1]  # (B, C_in, h, w)
        representations = self.pixel_representation(features) if self.pixel_representation else None  # (B, C, h, w)
        coarse = self.coarse_decoder(representations) if self.coarse_decoder else None  # (B, K, h, w)
        # OCRNet without memory takes its objects from the auxiliary head, which then runs in evaluation too.
        objects_from_auxiliary = self.context_input == "objects" and coarse is None
        auxiliary: tuple[Tensor, ...] = ()
        if self.training or objects_from_auxiliary:
            auxiliary = tuple(
                head(maps[feature]) for head, feature in zip(self.auxiliary, self.auxiliary_features, strict=True)
            )

        context = None
        if self.context and self.context_input == "features":
            context = self.context(features)  # (B, C, h, w)
        elif self.context and self.context_input == "pyramid":
            context = self.context(maps)  # (B, C, h', w')
        elif self.context and self.context_input == "objects":
            objects = resize(auxiliary[-1], features.shape[2:]) if objects_from_auxiliary else coarse
            context = self.context(representations, objects)  # (B, C, h, w)
        context_logits = self.context_decoder(context) if self.context_decoder else None  # (B, K, h, w)
        finer = tuple(maps[-self.pyramid.LEVELS : -1]) if self.pyramid else ()
        return HeadInput(representations, coarse, context, auxiliary, context_logits, finer)

    def _feature_maps(self, images: Tensor) -> list[Tensor]:
        """The encoder's maps, finest first and the image at [0], normed and the last one halved where so configured."""
        maps = list(self.encoder(images))
        if self.feature_norms is not None:
            maps[1:] = [norm(m) for norm, m in zip(self.feature_norms, maps[1:], strict=True)]
        if self.downsample is not None:
            maps[-1] = self.downsample(maps[-1])
        return maps

    def classify_memory(self) -> Tensor:
        """(K*S, K) logits of the final decoder for every memory vector: row k*S + s belongs to class k."""
        rows = self.memory.memory.flatten(0, 1)[:, :, None, None]  # (K*S, C, 1, 1), to batch norm a batch of images
        return self.final_decoder(rows).flatten(1)


def build_segmentor(benchmark: Benchmark, num_classes: int, pretrained: bool = True) -> Segmentor:
    """The network of a benchmark for `num_classes` classes, in training mode.

    `pretrained=False` leaves the encoder's weights random: they come from a checkpoint. Everything else is PyTorch's
    default initialisation, drawn from the global generator. Under `torch.device("meta")` nothing is allocated or read
    from disk, which checks a configuration quickly. Raises PipelineError for what is wrong in the configuration.
    """
    return Segmentor(benchmark, num_classes, pretrained)


def _build_memory(benchmark: Benchmark, num_classes: int, fuse_context: bool) -> FeatureMemory:
    head, memory = benchmark.segmentor, benchmark.memory
    settings = memory.model_dump(include=_OF_FEATURES if memory.kind == "features" else _OF_BOTH)
    settings |= {"fuse_context": fuse_context, "activation": head.activation}
    if memory.kind == "features":
        return FeatureMemory(num_classes, head.channels, head.attention_channels, **settings)
    settings["halved"] = memory.head.halved
    return DistributionMemory(num_classes, head.channels, head.attention_channels, **settings)


def _check_parts(
    benchmark: Benchmark, context_input: ContextInput, context: nn.Module | None, widths: Sequence[int]
) -> None:
    """Raise PipelineError for parts that cannot work together; `widths` has the input image at index 0."""
    framework, memory, heads = benchmark.segmentor.framework, benchmark.memory, benchmark.segmentor.auxiliary
    if memory is None and context_input == "objects" and not heads:
        raise PipelineError(
            f"{benchmark.id}: segmentor.auxiliary: {framework} without memory takes its object regions from the "
            "auxiliary head; keep one"
        )
    if memory is not None and context_input == "pyramid" and context is not None:
        raise PipelineError(
            f"{benchmark.id}: segmentor.framework: the context of {framework} is finer than the pixels that the "
            "memory augments; use fcn, pspnet, deeplabv3 or ocrnet, or remove the memory"
        )
    pyramids = ["memory.head.pyramid"] if memory is not None and memory.head.pyramid is not None else []
    pyramids += ["segmentor.framework"] if context_input == "pyramid" and context is not None else []
    if pyramids and len(widths) <= MemoryPyramid.LEVELS:
        raise PipelineError(
            f"{benchmark.id}: {pyramids[0]}: needs {MemoryPyramid.LEVELS} maps of the encoder, and depth "
            f"{benchmark.encoder.depth} gives {len(widths) - 1}; use a depth of {MemoryPyramid.LEVELS} or more"
        )
    usable = [index for index in range(-1, -len(widths), -1) if widths[index]]
    for head in heads:
        if head.feature not in usable:
            raise PipelineError(
                f"segmentor.auxiliary.feature: this encoder has no map {head.feature}; choose from {usable}"
            )


def start_from(model: Segmentor, weights: Path) -> list[str]:
    """Give `model` the weights of a trained network of the same encoder; returns the parts that keep their own.

    A part (`encoder`, `context`, `final_decoder`, ...) is taken over where both networks have it with the same
    parameters, and as a whole. Raises PipelineError unless the encoder is.
    """
    trained, fresh = _read(weights), []
    for name, part in model.named_children():
        given = {key.removeprefix(f"{name}."): values for key, values in trained.items() if key.startswith(f"{name}.")}
        if {key: v.shape for key, v in given.items()} == {key: v.shape for key, v in part.state_dict().items()}:
            part.load_state_dict(given)
        else:
            fresh.append(name)
    if "encoder" in fresh:
        raise PipelineError(f"{weights}: the encoder is another one than that of this network; start from one like it")
    return fresh


def load_segmentor(benchmark: Benchmark, num_classes: int, weights: Path) -> Segmentor:
    """The benchmark's segmentor with the weights of a safetensors file, strictly, in evaluation mode, on the CPU."""
    model = build_segmentor(benchmark, num_classes, pretrained=False)
    try:
        model.load_state_dict(_read(weights))
    except RuntimeError as error:
        raise PipelineError(f"{weights}: not the weights of {benchmark.id} as configured: {error}") from error
    return model.eval()


def _read(weights: Path) -> dict[str, Tensor]:
    try:
        return load_file(weights)
    except SafetensorError as error:
        raise PipelineError(f"{weights}: damaged ({error}); delete it and run `dvc repro`") from error
