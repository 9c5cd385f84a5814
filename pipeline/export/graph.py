"""The network as one file that runs without this project: torch.export (.pt2) or ONNX, compared with the network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.errors import PipelineError, first_line

GraphFormat = Literal["torch", "onnx"]
Size = tuple[int, int]

ENDINGS: dict[GraphFormat, str] = {"torch": ".pt2", "onnx": ".onnx"}
_CHECKED = ((2, 96, 128), (1, 128, 96), (3, 97, 131), (1, 160, 64))  # (B, H, W); 97 and 131 are multiples of no stride
_REMEDY = "give its images a fixed size with `--size HEIGHT WIDTH`, or leave this format out"
_TOLERANCE = 1e-3  # relative to the spread of the logits; rounding stays near 1e-6


class MatrixPooling(nn.Module):
    """(B, C, h, w) -> (B, C, bins, bins), what `nn.AdaptiveAvgPool2d(bins)` computes, as two matrix products.

    ONNX has no operator whose windows depend on the size of the image. Cell i of b covers the positions from
    floor(i h / b) to ceil((i + 1) h / b), so neighbours may share one.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, maps: Tensor) -> Tensor:
        """Average rows, then columns."""
        rows, columns = (_averages(length, self.bins, maps) for length in maps.shape[2:])
        return rows @ maps @ columns.transpose(0, 1)


def _averages(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row i averages the positions of cell i."""
    cells = torch.arange(bins, device=like.device)[:, None]
    positions = torch.arange(length, device=like.device)[None]
    start = torch.div(cells * length, bins, rounding_mode="floor")
    end = torch.div((cells + 1) * length + bins - 1, bins, rounding_mode="floor")
    inside = ((positions >= start) & (positions < end)).to(like.dtype)
    return inside / inside.sum(dim=1, keepdim=True)


class SamePadding(nn.Module):
    """timm's `Conv2dSame`: pads by as much as gives ceil(side / stride) places, counted in integers.

    timm divides and rounds up, for which torch.export has no serial form.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        conv, padding = self.conv, []
        for axis in (1, 0):  # the width first, as `pad` wants it
            side, stride = maps.shape[2 + axis], conv.stride[axis]
            total = ((side + stride - 1) // stride - 1) * stride + _reach(conv, axis) - side
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(maps, padding), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _reach(conv: nn.Conv2d, axis: int) -> int:
    """Pixels that a kernel spans."""
    return (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1


def _exportable(model: nn.Module) -> nn.Module:
    """`model`, changed in place: the layers that a graph cannot hold for any image size in other operators."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int) and child.output_size > 1:
                setattr(module, name, MatrixPooling(child.output_size))
            elif isinstance(child, Conv2dSame) and all(_reach(child, axis) >= child.stride[axis] for axis in (0, 1)):
                setattr(module, name, SamePadding(child))  # a kernel within its stride may need no padding at all
    return model


class _Logits(nn.Module):
    """(B, 3, H, W) -> (B, K, h, w): the segmentor's logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


@torch.no_grad()
def trace(model: nn.Module, size: Size | None) -> ExportedProgram:
    """The graph of `model` (its output has `logits`) in evaluation mode on the CPU, for any batch and, unless `size` is
    given, any height and width.

    The memory, like all buffers, becomes a constant of the graph. Raises PipelineError when tracing fails.
    """
    twin = _exportable(copy.deepcopy(model).cpu().eval().requires_grad_(False))
    images = torch.zeros(2, 3, *(size or _CHECKED[0][1:]))
    free = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        return torch.export.export(_Logits(twin), (images,), dynamic_shapes={"images": free}, strict=False)
    except Exception as error:  # torch raises dozens of kinds, most of them private
        raise PipelineError(f"the network cannot be traced ({first_line(error)}); {_REMEDY}") from error


def write_graph(program: ExportedProgram, format: GraphFormat, path: Path, size: Size | None) -> None:
    """Write `program` to `path`. Input `images` (B, 3, H, W) float32, output `logits` (B, K, h, w) float32.

    Raises PipelineError when the format lacks something that the network needs.
    """
    free = {0: "batch"} if size else {0: "batch", 2: "height", 3: "width"}
    try:
        if format == "torch":
            torch.export.save(program, path)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the exporter about torch's own parts
            written = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": free},
                verbose=False,
            )
        written.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:  # as above
        raise PipelineError(f"{path}: cannot be written ({first_line(error)}); {_REMEDY}") from error


@torch.no_grad()
def compare(model: nn.Module, format: GraphFormat, path: Path, size: Size | None) -> tuple[float, float]:
    """Run the file `path` on several batches and sizes (or on `size`) beside `model`, on the CPU.

    Returns the largest difference of a logit, and the standard deviation of the network's logits. Raises PipelineError
    when the file cannot run or its logits differ by more than rounding.
    """
    run = _runner(format, path)
    difference, values = 0.0, []
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in _CHECKED if size is None else ((1, *size), (2, *size)):
        images = torch.randn(batch, 3, height, width, generator=generator)
        try:
            expected = model(images).logits
            difference = max(difference, (run(images) - expected).abs().max().item())
        except Exception as error:  # of torch or onnxruntime
            raise PipelineError(f"{path}: cannot run on {height}x{width} ({first_line(error)}); {_REMEDY}") from error
        values.append(expected.flatten())
    deviation = torch.cat(values).std().item()
    if not difference <= _TOLERANCE * deviation:
        raise PipelineError(
            f"{path}: its logits differ from the network's by up to {difference:.2g}, which vary by {deviation:.2g}; "
            f"{_REMEDY}"
        )
    return difference, deviation


def _runner(format: GraphFormat, path: Path) -> Callable[[Tensor], Tensor]:
    if format == "torch":
        return torch.export.load(path).module()
    import onnxruntime  # takes seconds to import and is needed only here

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
