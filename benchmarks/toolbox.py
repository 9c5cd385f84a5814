"""The authors' toolbox itself, which `make toolbox` installs: a benchmark's network, its training step, its label map.

Its package has no configuration files, so the configuration is written here from the benchmark's. Random weights are
drawn once and reach our network as those of a published checkpoint do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.checkpoints.key_names import from_published
from pipeline.config.schema import Benchmark, MemoryConfig, ProtocolConfig
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.errors import PipelineError
from pipeline.models import Segmentor, build_segmentor
from pipeline.models.context import framework_options

_ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "LeakyReLU"}
_SWIN = {"embed_dims": 192, "window_size": 12, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48]}
_VIT = {"embed_dims": 1024, "num_layers": 24, "num_heads": 16, "out_indices": (9, 14, 19, 23), "drop_rate": 0.1}
_BACKBONES: dict[str, dict[str, Any]] = {
    "tu-resnet50c": {"type": "ResNet", "depth": 50, "use_conv3x3_stem": True},
    "tu-resnet101c": {"type": "ResNet", "depth": 101, "use_conv3x3_stem": True},
    "resnest101": {"type": "ResNeSt", "depth": 101},
    "hrnetv2-w48": {"type": "HRNet", "arch": "hrnetv2_w48", "selected_indices": (0, 0, 0, 0)},
    "vit-large-p16": {"type": "VisionTransformer", "norm_cfg": {"type": "LayerNorm", "eps": 1e-6}, **_VIT},
    "swin-large": {"type": "SwinTransformer", "norm_cfg": {"type": "LayerNorm"}, "pretrain_img_size": 384, **_SWIN},
}
_SEGMENTORS = {"fcn": "FCN", "pspnet": "PSPNet", "deeplabv3": "Deeplabv3", "ocrnet": "OCRNet", "upernet": "UPerNet"}
_CROSS_ENTROPY = {"type": "CrossEntropyLoss", "ignore_index": IGNORE_INDEX, "reduction": "mean"}


def twins(benchmark: Benchmark, num_classes: int) -> tuple[nn.Module, Segmentor]:
    """The toolbox's segmentor and ours with equal random weights, norms and memory, on the CPU, in evaluation mode.

    Raises PipelineError where the toolbox is not installed.
    """
    try:
        from ssseg.modules import BuildSegmentor
        from ssseg.modules.models.backbones.hrnet import HRModule
    except ModuleNotFoundError as error:
        raise PipelineError(f"the authors' toolbox cannot be imported ({error}); run `make toolbox`") from error

    HRModule.use_checkpoint = False  # 1.7.0 reads it before it is set, so that no HRNet can be built
    with torch.device("meta"):
        ours = build_segmentor(benchmark, num_classes, pretrained=False).eval()
    torch.manual_seed(0)
    theirs = BuildSegmentor(_configuration(benchmark, num_classes, ours.encoder.out_channels), mode="TEST").eval()
    state = theirs.state_dict()
    for key, value in state.items():
        value.copy_(_varied(key, value))
    own = ours.state_dict()
    renamed = from_published(state, own)
    ours.load_state_dict({key: renamed[key].detach().clone() for key in own}, assign=True)
    return theirs, ours


def their_logits(network: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, K, h, w): what the toolbox's segmentor returns in evaluation mode."""
    from ssseg.modules import SSSegInputStructure

    return network(SSSegInputStructure(images=images, mode="TEST")).seg_logits


def their_optimizer(network: nn.Module, benchmark: Benchmark) -> torch.optim.Optimizer:
    """SGD as the toolbox builds it, one rate and one decay for all parameters."""
    from ssseg.modules import BuildOptimizer

    config = benchmark.optimizer
    chosen = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    return BuildOptimizer(network, {"type": "SGD", "params_rules": {}, **chosen})


def their_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, lr: float, epoch: int
) -> dict[str, float]:
    """One step of a network with memory in training mode: its losses by the toolbox's names, `loss_total` their sum.

    images (B, 3, H, W), labels (B, H, W) int64.
    """
    from ssseg.modules import SSSegInputStructure

    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    batch = SSSegInputStructure(images=images, seg_targets=labels, mode="TRAIN")
    output = network(batch, learning_rate=lr, epoch=epoch)
    output.loss.backward()
    optimizer.step()
    return output.losses_log_dict


@torch.no_grad()
def their_label_map(
    network: nn.Module,
    image: Tensor,
    protocol: ProtocolConfig,
    size: tuple[int, int],
    flip_pairs: Sequence[tuple[int, int]] = (),
    passes: int = 1,
) -> Tensor:
    """Label map (H, W) int64, on the CPU, of one image (1, 3, h, w): as the toolbox's test script makes it.

    passes: more than one is its cascade, in which the average of all views goes back into the network.
    """
    network.cfg["inference"] = {
        "forward": {"mode": protocol.mode, "cropsize": protocol.crop, "stride": protocol.stride},
        "tta": {
            "multiscale": protocol.scales,
            "flip": protocol.flip,
            "use_probs_before_resize": protocol.average == "probabilities",
            "fixed_seg_target_pairs": flip_pairs,
        },
    }
    views = network.auginference(image)
    for _ in range(passes - 1):
        earlier = _averaged(views, views[-1].shape[2:])
        views = network.auginference(image, {"memory_gather_logits": earlier})
    return _averaged(views, size)[0].argmax(dim=0).cpu()


def _averaged(views: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    resized = [F.interpolate(view, size=size, mode="bilinear", align_corners=False) for view in views]  # (1, K, H, W)
    return sum(resized) / len(resized)


def update_configuration(memory: MemoryConfig, lr: float) -> dict[str, Any]:
    """The last arguments of the memories' `update`. lr: the one at which the momentum applies."""
    schedule = memory.momentum_schedule == "learning_rate"
    momentum = {"base_momentum": memory.momentum, "base_lr": memory.base_lr or lr, "adjust_by_learning_rate": schedule}
    strategy = {"strategy": "cosine_similarity" if memory.strategy == "cosine" else "mean"}
    return {"ignore_index": IGNORE_INDEX, "momentum_cfg": momentum, **(strategy if memory.kind == "features" else {})}


def _varied(key: str, value: Tensor) -> Tensor:
    """What an initialisation leaves at 0 or 1 (norms, biases, memory, positions), moved away from it."""
    if key == "memory_module.memory":
        return torch.rand(value.shape) if value.ndim > 2 else 0.3 * torch.randn(value.shape) + torch.tensor([0.0, 1.0])
    if key.endswith("running_var"):
        return 0.5 + torch.rand(value.shape)
    if not value.is_floating_point() or (value.ndim > 1 and value.std() > 0):
        return value
    return value + 0.1 * torch.randn(value.shape)


def _configuration(benchmark: Benchmark, num_classes: int, widths: list[int]) -> dict[str, Any]:
    """The toolbox's segmentor configuration. widths: channels of the encoder's maps."""
    segmentor, memory, head = benchmark.segmentor, benchmark.memory, _head(benchmark, widths)
    kind = _SEGMENTORS[segmentor.framework]
    if memory is not None:
        kind = "MCIBI" if memory.kind == "features" else "MCIBIPlusPlus"
    auxiliary = [
        {
            "in_channels": widths[one.feature],
            "out_channels": one.channels,
            "dropout": segmentor.dropout,
            "num_convs": one.convs,
            **({"upsample": {"scale_factor": one.upsample}} if one.upsample > 1 else {}),
        }
        for one in segmentor.auxiliary
    ]
    return {
        "type": kind,
        "num_classes": num_classes,
        "align_corners": False,
        "norm_cfg": {"type": "BatchNorm2d"},
        "act_cfg": {"type": _ACTIVATIONS[segmentor.activation], "inplace": True},
        "backbone": _backbone(benchmark),
        "head": head,
        "auxiliary": auxiliary[0] if len(auxiliary) == 1 else auxiliary or None,
        "losses": _losses(benchmark, len(auxiliary)),
    }


def _backbone(benchmark: Benchmark) -> dict[str, Any]:
    encoder = benchmark.encoder
    found = {"structure_type": encoder.name, "pretrained": False, "selected_indices": (0, 1, 2, 3)}
    found |= _BACKBONES[encoder.name]
    if found["type"].startswith("Res"):
        found["outstride"] = encoder.output_stride or 32
    if found["type"] == "VisionTransformer":
        found["img_size"] = benchmark.augmentation.crop
    return found


def _head(benchmark: Benchmark, widths: list[int]) -> dict[str, Any]:
    segmentor, memory = benchmark.segmentor, benchmark.memory
    options = {name: list(value) for name, value in framework_options(segmentor).model_dump().items()}
    if "bins" in options:
        options["pool_scales"] = options.pop("bins")
    head: dict[str, Any] = {
        "in_channels": widths[-1],
        "feats_channels": segmentor.channels,
        "transform_channels": segmentor.attention_channels,
        "out_channels": segmentor.channels,
        "dropout": segmentor.dropout,
    }
    if memory is None:
        own = {"fcn": {"num_convs": 2}, "ocrnet": {"scale": 1}}
        own["upernet"] = {"in_channels_list": list(widths[-4:]), "pool_scales": [1, 2, 3, 6]}
        return head | options | own.get(segmentor.framework, {})
    return head | (_feature_memory if memory.kind == "features" else _distribution_memory)(benchmark, widths, options)


def _context(framework: str, options: dict[str, Any]) -> dict[str, Any]:
    kind = {"pspnet": "ppm", "upernet": "aspp", "deeplabv3": "aspp"}.get(framework)
    return {"is_on": kind is not None, "type": kind, "cfg": options}


def _feature_memory(benchmark: Benchmark, widths: list[int], options: dict[str, Any]) -> dict[str, Any]:
    segmentor, memory = benchmark.segmentor, benchmark.memory
    found: dict[str, Any] = {
        "downsample_backbone": {
            "kernel_size": 3,
            "stride": 2 if segmentor.downsample else 1,
            "padding": 1,
            "bias": False,
        },
        "context_within_image": _context(segmentor.framework, options),
        "use_hard_aggregate": memory.aggregation == "hard",
        "num_feats_per_cls": memory.slots,
        "use_loss": benchmark.loss.consistency > 0,
        "loss_cfg": {"type": "CrossEntropyLoss", "scale_factor": benchmark.loss.consistency, "reduction": "mean"},
        "update_cfg": update_configuration(memory, benchmark.optimizer.lr),
    }
    if segmentor.feature_norm:
        found["norm_cfg"] = {"type": "LayerNorm", "eps": 1e-6, "in_channels_list": list(widths[-4:])}
    return found


def _distribution_memory(benchmark: Benchmark, widths: list[int], options: dict[str, Any]) -> dict[str, Any]:
    segmentor, memory = benchmark.segmentor, benchmark.memory
    head, channels = memory.head, segmentor.channels
    context = _context(segmentor.framework, {"pool_scales": [1, 2, 3, 6], "dilations": [1, 12, 24, 36]} | options)
    context["use_self_attention"] = memory.fusion == "attention"
    joined = channels if not context["is_on"] else 2 * channels + 3 * (head.pyramid or 0)
    kernels = {"pr": head.coarse_kernel, "cwi": head.context_kernel, "cls": head.final_kernel}
    decoders = {
        name: {
            "in_channels": joined if name == "cls" else channels,
            "out_channels": channels,
            "dropout": segmentor.dropout,
            "kernel_size": kernel,
            "padding": kernel // 2,
        }
        for name, kernel in kernels.items()
    }
    pyramid = {"in_channels_list": [*widths[-4:-1], 2 * channels], "feats_channels": 2 * channels}
    return {
        "context_within_image": context,
        "use_hard_aggregate": memory.aggregation == "hard",
        "downsample_before_sa": head.halved,
        "force_use_preds_pr": head.weights_from == "coarse",
        "update_cfg": update_configuration(memory, benchmark.optimizer.lr),
        "decoder": decoders,
        **({"fpn": pyramid | {"out_channels": head.pyramid}} if head.pyramid else {}),
    }


def _losses(benchmark: Benchmark, auxiliary: int) -> dict[str, Any]:
    loss, memory = benchmark.loss, benchmark.memory
    names = {"final": "loss_cls"}
    if memory is not None and memory.kind == "features":
        names = {"final": "loss_cls_stage2", "coarse": "loss_cls_stage1"}
    elif memory is not None:
        names = {"final": "loss_cls", "coarse": "loss_pr"}
        if benchmark.segmentor.framework != "fcn":
            names["context"] = "loss_cwi"
    weights = {name: getattr(loss, ours) for ours, name in names.items()}
    heads = ["loss_aux"] if auxiliary == 1 else [f"loss_aux{number + 1}" for number in range(auxiliary)]
    weights |= dict.fromkeys(heads, loss.auxiliary)
    return {name: {"scale_factor": weight, **_CROSS_ENTROPY} for name, weight in weights.items()}
