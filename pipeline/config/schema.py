"""Typed form of `params/<benchmark>.yaml` and `params.yaml`: every key, its unit and its default.

Defaults are the published settings (docs/method.md), so a benchmark file states only what differs. The exceptions are
`memory.gradient`, which the published rows therefore set to `updated`, and `memory.sync`. Sizes are (height, width) in
pixels unless a name says otherwise. What depends on the dataset or on the encoder's abilities is checked in
`pipeline.planning.validate`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """`seeds` unchanged. Raises ValueError for a repeated one: its runs are equal, but would count as two."""
    repeated = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if repeated:
        verb = "is" if len(repeated) == 1 else "are"
        raise ValueError(f"{', '.join(map(str, repeated))} {verb} listed more than once; list each seed once")
    return seeds


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(each_once)]

PROTOCOL_NAMES = {"single_scale": "single scale", "ms_flip": "multi-scale + flip"}
PROTOCOLS = tuple(PROTOCOL_NAMES)  # keys of `inference`, and of every result file
PRIMARY = "ms_flip"  # the protocol of headline numbers, class tables, confusion matrices and pictures

Cascade = Literal["none", "mean", "authors"]

_ROUNDING = 1e-5  # the published 0.9 / 0.009 * 0.01 is 1, and a remedy is printed with six digits


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetConfig(Section):
    """Which dataset (a module of `pipeline.datasets.sources`) and the roles of its splits."""

    name: str
    train_splits: tuple[str, ...] = ("train",)  # Cityscapes rows of the paper train on (train, val)
    # Fraction of the training images, drawn with the run's seed: a smaller one is a subset of every larger one.
    train_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    validation_split: str = "val"  # watched during training, picks the best checkpoint
    evaluation_split: str = "test"  # what the report's numbers are measured on


class EncoderConfig(Section):
    """An encoder of `pipeline.models.encoders`, or of segmentation-models-pytorch, timm's as `tu-NAME`."""

    name: str
    # null: random | `package:NAME` | `file:PATH` | `imagenet:NAME` | a pretrained tag of segmentation-models-pytorch
    weights: str | None = None
    output_stride: Literal[4, 8, 16, 32] | None = None  # reached by dilation; null: the encoder's own
    depth: Annotated[int, Field(ge=2, le=5)] = 5  # number of stride-2 stages kept: depth 3 cuts at stride 8
    options: dict[str, Any] = {}  # of an encoder of `pipeline.models.encoders`, e.g. {stem_relu: false}


class AuxiliaryConfig(Section):
    """Fully convolutional head on an earlier feature map, for an auxiliary loss.

    OCRNet without memory takes its object regions from the last of them, also in evaluation.
    """

    feature: Annotated[int, Field(le=-1)] = -2  # index into the encoder's feature maps, counted from the last
    channels: Positive = 512
    convs: Positive = 1  # CBA3 blocks before the classifier
    upsample: Positive = 1  # factor after each of them, nearest


class SegmentorConfig(Section):
    """The framework, with or without memory (docs/method.md, Architecture)."""

    framework: str  # an entry of `pipeline.models.context`: fcn, pspnet, deeplabv3, ocrnet, upernet
    options: dict[str, Any] = {}  # of that framework's context module, e.g. {dilations: [1, 12, 24, 36]}
    channels: Positive = 512  # C, feature channels of the head
    attention_channels: Positive = 256  # T
    activation: Literal["relu", "leaky_relu"] = "relu"  # of the head, never of the encoder
    dropout: Fraction = 0.1
    auxiliary: tuple[AuxiliaryConfig, ...] = (AuxiliaryConfig(),)
    downsample: bool = False  # halve the encoder's last map before the head: HRNet on Cityscapes and LIP
    feature_norm: bool = False  # layer norm over the channels of each encoder map: ViT


class DistributionHead(Section):
    """The decoders around a distribution memory (docs/method.md, MCIBI++)."""

    coarse_kernel: Literal[1, 3] = 1
    context_kernel: Literal[1, 3] = 1  # of the decoder that segments by the context within the image alone
    final_kernel: Literal[1, 3] = 1
    weights_from: Literal["context", "coarse"] = "context"  # whose logits weight the classes, where there is a context
    halved: bool = False  # read the memory at half the resolution: HRNet
    # Channels of each finer level of a feature pyramid that carries the result up to the encoder's finest map; or null.
    pyramid: Positive | None = None


class MemoryConfig(Section):
    """The dataset-level memory (docs/method.md, Architecture, Memory update and MCIBI++)."""

    # Class vectors (`features`, MCIBI), or a mean and a deviation per class that scale a fixed random code
    # (`distribution`, MCIBI++), which has its own `head`, and no slots, strategy and gradient.
    kind: Literal["features", "distribution"] = "features"
    head: DistributionHead = DistributionHead()
    # What the module reads: class vectors of the whole dataset, updated in training (the method); or, as controls with
    # the same parameters, fixed random vectors, or the batch's own class means (in evaluation: the image's), weighted
    # by the coarse probabilities; or nothing (`none`): the module's convolutions alone, without attention to a memory.
    content: Literal["dataset", "random", "batch", "none"] = "dataset"
    # How what was read joins the context: through the attention of the method; concatenated with the context itself
    # (`direct`); or added to the network without memory, times a gain that is learned from 0 (`residual`).
    fusion: Literal["attention", "direct", "residual"] = "attention"
    slots: Positive = 1  # vectors per class; the paper uses one
    aggregation: Literal["soft", "hard"] = "soft"
    strategy: Literal["cosine", "mean"] = "cosine"
    # Weight of the new vector in the moving average, the reverse of the usual convention: 0.9 keeps 10 % of the old.
    momentum: Fraction = 0.9
    momentum_schedule: Literal["learning_rate", "fixed"] = "learning_rate"
    base_lr: Annotated[float, Field(gt=0)] | None = None  # the lr at which `momentum` applies; null: optimizer.lr
    context_within_image: bool = True  # fuse the framework's own context features (if it has any)
    # The memory in the gradient of the coarse softmax: the one that the forward pass read (`exact`), or the one after
    # this iteration's update (`updated`), as in the authors' code and therefore in the published rows.
    gradient: Literal["exact", "updated"] = "exact"
    # On several devices: sum the batch statistics and update once, which gives the memory of a single device, or update
    # on each device and average the memories, as the authors do.
    sync: Literal["statistics", "per_rank_mean"] = "statistics"

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> MemoryConfig:
        if self.kind == "features" and self.head != DistributionHead():
            raise ValueError("head: belongs to kind: distribution")
        if self.kind == "distribution":
            own = {"slots": 1, "strategy": "cosine", "gradient": "exact"}
            if wrong := [key for key, default in own.items() if getattr(self, key) != default]:
                raise ValueError(f"{', '.join(wrong)}: only kind: features has a choice there; leave out")
            if self.content in ("batch", "none"):
                raise ValueError(f"content: {self.content} needs kind: features; use dataset or random")
        return self

    @model_validator(mode="after")
    def _controls_are_not_updated(self) -> MemoryConfig:
        if self.content != "dataset" and self.gradient == "updated":
            raise ValueError(f"gradient: updated needs an update, and content: {self.content} has none; use exact")
        if self.content in ("batch", "none") and self.slots > 1:
            holder = "a batch has one mean per class" if self.content == "batch" else "content: none reads none"
            raise ValueError(f"slots: {self.slots}, but {holder}; use slots: 1")
        return self


class LossConfig(Section):
    """Weights of the cross-entropy terms (docs/method.md, Losses). A weight of 0 switches a term off."""

    final: Weight = 1.0
    coarse: Weight = 0.4  # coarse segmentation: the logits that weight the memory
    auxiliary: Weight = 0.4
    context: Weight = 1.0  # logits of the context within the image, which a distribution memory has
    consistency: Weight = 0.0  # representation consistency loss: the final decoder classifies the memory itself
    consistency_from_epoch: Positive = 2  # epochs count from 1
    # Of the pixels in final, coarse and auxiliary loss: all alike, or each class by the median of all classes'
    # frequencies over its own, in the training images that contain it (Eigen and Fergus, ICCV 2015, section 6.1).
    class_weights: Literal["none", "median_frequency"] = "none"


class OptimizerConfig(Section):
    """Optimiser and its parameter groups (encoder or head, decayed or not)."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Fraction = 0.9  # sgd only
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # adamw only
    weight_decay: Weight = 5e-4
    encoder_lr_multiplier: Annotated[float, Field(gt=0)] = 1.0
    decay_norm_and_bias: bool = True  # the published SGD rows decay every parameter
    decay_encoder_norms: bool = True  # false: neither the encoder's norms nor its position biases (Swin)
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None


class ScheduleConfig(Section):
    """Poly decay per iteration t: (lr - min_lr) * (1 - t/T)^power + min_lr (docs/method.md, Training schedule)."""

    epochs: Positive
    batch_size: Annotated[int, Field(ge=2)]  # global: over all devices; BatchNorm of a 1x1 map needs two images
    power: Annotated[float, Field(gt=0)] = 0.9
    min_lr: Weight | None = None  # null: 0.01 * lr
    warmup_iterations: Annotated[int, Field(ge=0)] = 0  # the decayed rate times a factor that rises linearly to 1
    warmup_ratio: Fraction = 1e-6  # the factor at iteration 0
    validate_every: Positive = 10  # epochs


class ResizeConfig(Section):
    """Resize, to fit into the box (long, short) with `keep_ratio`, else to exactly `size`."""

    keep_ratio: bool = True
    long: Positive | None = None  # bounds of the longer and the shorter side, used when the ratio is kept
    short: Positive | None = None
    size: tuple[Positive, Positive] | None = None  # (height, width), used when it is not

    @model_validator(mode="after")
    def _one_form(self) -> ResizeConfig:
        box, size = (self.long, self.short), self.size
        if self.keep_ratio and (None in box or size is not None):
            raise ValueError("with keep_ratio: true give `long` and `short` (and no `size`)")
        if not self.keep_ratio and (size is None or box != (None, None)):
            raise ValueError("with keep_ratio: false give `size: [height, width]` (and neither `long` nor `short`)")
        return self


class RotationConfig(Section):
    """Random rotation about the centre without scaling."""

    probability: Fraction = 0.6
    degrees: tuple[int, int] = (-30, 30)  # integer angle in [low, high)


class AugmentationConfig(Section):
    """Training transforms, in the order of docs/method.md, Data augmentation."""

    resize: ResizeConfig | None = None  # null: the prepared size
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.5, 2.0)  # multiplies the box
    crop: tuple[Positive, Positive]
    max_class_share: Fraction = 0.75  # redraw a crop if one class has this share of the valid pixels, or all
    flip: Fraction = 0.5  # probability; left/right classes are swapped where the dataset names pairs
    rotation: RotationConfig | None = None  # LIP
    photometric: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is [low, high] but {self.scale[0]} > {self.scale[1]}")
        return self


class ProtocolConfig(Section):
    """One way to turn an image into a label map (docs/method.md, Inference and metrics)."""

    mode: Literal["whole", "slide"] = "whole"
    crop: tuple[Positive, Positive] | None = None  # window (height, width), slide only
    stride: tuple[Positive, Positive] | None = None
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)
    flip: bool = False
    average: Literal["logits", "probabilities"] = "logits"  # what scales and flips average
    resize: ResizeConfig | None = None  # of the test image, if another than that of `inference`

    @model_validator(mode="after")
    def _window(self) -> ProtocolConfig:
        if self.mode == "slide" and (self.crop is None or self.stride is None):
            raise ValueError("mode: slide needs `crop` and `stride`, each [height, width]")
        if self.mode == "whole" and (self.crop is not None or self.stride is not None):
            raise ValueError("`crop` and `stride` belong to mode: slide")
        if self.crop and (self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]):
            raise ValueError(f"stride {self.stride} larger than crop {self.crop} would skip pixels")
        return self

    def view_sizes(self, height: int, width: int) -> dict[float, tuple[int, int]]:
        """Scale -> (height, width) of what the network reads of an image of this size."""
        sizes = {scale: (int(height * scale), int(width * scale)) for scale in self.scales}
        if self.crop is None:
            return sizes
        return {scale: (min(h, self.crop[0]), min(w, self.crop[1])) for scale, (h, w) in sizes.items()}


class InferenceConfig(Section):
    """How the trained model is tested."""

    resize: ResizeConfig | None = None  # of the test image; labels keep their size. null: the prepared size
    checkpoint: Literal["last", "best"] = "last"  # the published files are the last epoch
    single_scale: ProtocolConfig = ProtocolConfig()
    ms_flip: ProtocolConfig = ProtocolConfig(
        scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True, average="probabilities"
    )
    cascade: Cascade = "none"  # a second pass, in which the first one's average helps to choose what is read

    @model_validator(mode="after")
    def _cascade_of_whole_images(self) -> InferenceConfig:
        if self.cascade != "none" and any(protocol.mode == "slide" for protocol in self.protocols.values()):
            raise ValueError("cascade passes on the map of a whole image; use mode: whole, or cascade: none")
        return self

    @property
    def protocols(self) -> dict[str, ProtocolConfig]:
        """By name, in the order of PROTOCOLS."""
        return {name: getattr(self, name) for name in PROTOCOLS}

    def resized(self, protocol: ProtocolConfig) -> ResizeConfig | None:
        """How the test image is resized before the views of `protocol` are made."""
        return self.resize if protocol.resize is None else protocol.resize


class PublishedScores(Section):
    """mIoU in percent as printed by the authors; null: not reported."""

    single_scale: float | None = None
    ms_flip: float | None = None  # LIP: flip at a single scale


class OpenQuestion(Section):
    """A setting that neither the authors' publications nor their weights determine."""

    key: str  # the parameter that decides it, such as `encoder.options.stem_relu`
    note: str  # why this file's value was chosen, and the evidence for another


class PublishedConfig(Section):
    """What the authors published for this benchmark (docs/published-rows.md, Checkpoints)."""

    paper: PublishedScores | None = None  # the paper repository's table
    model_zoo: PublishedScores | None = None  # the later table of the authors' toolbox, which uses this file's protocol
    checkpoints: tuple[str, ...] = ()  # addresses of the weights, tried in this order
    open_questions: tuple[OpenQuestion, ...] = ()


class StartConfig(Section):
    """A trained network of the same seed whose weights a training starts from (`start:` of a study's variant)."""

    benchmark: str
    config_hash: str  # with which it was trained


class Benchmark(Section):
    """Everything that defines one benchmark; `id` is the file's name."""

    id: str
    description: str
    mode: Literal["train", "import"] = "train"  # import: evaluate the published checkpoint instead of training
    baseline: str | None = None  # id of the same framework without memory: the report's gain is measured against it
    dataset: DatasetConfig
    encoder: EncoderConfig
    segmentor: SegmentorConfig
    memory: MemoryConfig | None = None
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    augmentation: AugmentationConfig
    inference: InferenceConfig = InferenceConfig()
    start: StartConfig | None = None  # set by studies alone
    published: PublishedConfig | None = None

    @model_validator(mode="after")
    def _consistency_needs_memory(self) -> Benchmark:
        if self.loss.consistency > 0 and self.memory is None:
            raise ValueError("loss.consistency classifies the memory: add a `memory:` section or set the weight to 0")
        if self.loss.consistency > 0 and self.memory.kind == "distribution":
            raise ValueError("loss.consistency classifies class vectors, which kind: distribution has not; set it to 0")
        if self.loss.consistency > 0 and (content := self.memory.content) in ("batch", "none"):
            raise ValueError(
                f"loss.consistency classifies the memory, which content: {content} leaves empty; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _cascade_needs_memory(self) -> Benchmark:
        if self.inference.cascade != "none" and self.memory is None:
            raise ValueError("inference.cascade reads the memory twice: add a `memory:` section or set it to none")
        return self

    @model_validator(mode="after")
    def _momentum_is_at_most_one(self) -> Benchmark:
        memory, optimizer = self.memory, self.optimizer
        if memory is None or memory.content != "dataset" or memory.momentum_schedule == "fixed":
            return self
        base = memory.base_lr or optimizer.lr
        highest = max(optimizer.lr, self.schedule.min_lr or 0.0)
        momentum = memory.momentum / base * highest
        if momentum > 1.0 + _ROUNDING:
            raise ValueError(
                f"memory.base_lr: memory.momentum: {memory.momentum:g} at a learning rate of {base:g} is {momentum:g} "
                f"at the highest, {highest:g}, but a momentum is at most 1; set memory.base_lr to "
                f"{memory.momentum * highest:g} or more, or memory.momentum_schedule: fixed"
            )
        return self


class RuntimeConfig(Section):
    """How to run, never what.

    Beyond rounding, a result may change with `precision`; with `devices` and `accumulate` (batch norm, dropout and,
    with `memory.gradient: updated` or `memory.sync: per_rank_mean`, the memory); and with `compile` (dropout).
    """

    device: str = "auto"  # auto | cpu | cuda | cuda:N
    devices: Positive = 1  # per node; each takes an equal share of the global batch
    nodes: Positive = 1
    accumulate: Positive = 1  # parts into which a device's share is divided, to save memory
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"  # tf32: on a GPU, 10 bits in products
    compile: bool = False  # torch.compile the network in training; see `pipeline.config.limits`
    workers: Annotated[int, Field(ge=0)] | None = None  # data-loading processes per device; null: automatic
    log_every: Positive = 10  # iterations between two points of a curve
    save_every: Positive = 200  # iterations between two saves of the resumable state
    evaluation_batch: Positive = 1  # test images of equal size that share a forward pass
    mlflow: bool = True

    @model_validator(mode="after")
    def _one_device_for_each_process(self) -> RuntimeConfig:
        kind, colon, _ = self.device.partition(":")
        if colon and self.devices > 1:
            raise ValueError(
                f"device: {self.device} is a single device, which all of devices: {self.devices} would share; "
                f"set device: {kind}, and each process takes another, or devices: 1"
            )
        return self


class SourceConfig(Section):
    """A local copy of a part of a dataset."""

    path: str  # folder or archive
    images: dict[str, Annotated[int, Field(ge=0)]]  # expected number per split, in place of the official ones


class Project(Section):
    """`params.yaml`."""

    benchmarks: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Seeds = (0,)
    sources: dict[str, str | SourceConfig | None] = {}  # dataset: local folder or archive; null: the public address
    weights: dict[str, str | None] = {}  # benchmark (its checkpoint) or ImageNet name: local file; null: public address
    runtime: RuntimeConfig = RuntimeConfig()
    ablation: dict[str, Any] = {}  # changes to every chosen benchmark (`pipeline.config.overlay`)
