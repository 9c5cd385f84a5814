"""The network as one file that runs without this project: torch.export (.pt2) or ONNX, compared with the network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pipeline.errors import PipelineError
from pipeline.export.layers import exportable

GraphFormat = Literal["torch", "onnx"]
Size = tuple[int, int]

ENDINGS: dict[GraphFormat, str] = {"torch": ".pt2", "onnx": ".onnx"}
_CHECKED = ((2, 96, 128), (1, 128, 96), (3, 97, 131), (1, 160, 64))  # (B, H, W); odd sizes are no multiple of a stride
_TOLERANCE = 1e-3  # relative to the spread of the logits; rounding stays near 1e-6


@dataclass(frozen=True)
class Agreement:
    """Largest difference of a logit over all checked inputs, and the standard deviation of the network's logits."""

    largest_difference: float
    deviation: float


class _Logits(nn.Module):
    """(B, 3, H, W) -> (B, K, h, w): a graph has no use for the segmentor's other outputs."""

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
    twin = exportable(copy.deepcopy(model).cpu().eval().requires_grad_(False))
    images = torch.zeros(2, 3, *(size or _CHECKED[0][1:]))
    free = {0: Dim.DYNAMIC} if size else {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        return torch.export.export(_Logits(twin), (images,), dynamic_shapes={"images": free}, strict=False)
    except Exception as error:  # torch raises dozens of kinds, most of them private
        raise PipelineError(f"the network cannot be traced ({_first_line(error)}); {_remedy(size)}") from error


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
        raise PipelineError(f"{path}: cannot be written ({_first_line(error)}); {_remedy(size)}") from error


@torch.no_grad()
def compare(model: nn.Module, format: GraphFormat, path: Path, size: Size | None) -> Agreement:
    """Run the file `path` on several batches and sizes (or on `size`) beside `model`, on the CPU.

    Raises PipelineError when the file cannot run or its logits differ by more than rounding.
    """
    run = _RUNNERS[format](path)
    difference, values = 0.0, []
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in _CHECKED if size is None else ((1, *size), (2, *size)):
        images = torch.randn(batch, 3, height, width, generator=generator)
        expected = model(images).logits
        try:
            found = run(images)
        except Exception as error:  # of torch or onnxruntime
            reason = _first_line(error)
            raise PipelineError(f"{path}: cannot run on {height}x{width} ({reason}); {_remedy(size)}") from error
        if found.shape != expected.shape:
            shapes = f"{tuple(found.shape)} in place of {tuple(expected.shape)}"
            raise PipelineError(f"{path}: logits of shape {shapes} for {height}x{width}; {_remedy(size)}")
        difference = max(difference, (found - expected).abs().max().item())
        values.append(expected.flatten())
    deviation = torch.cat(values).std().item()
    if not difference <= _TOLERANCE * deviation:
        raise PipelineError(
            f"{path}: its logits differ from the network's by up to {difference:.2g}, which vary by {deviation:.2g}; "
            f"{_remedy(size)}"
        )
    return Agreement(difference, deviation)


def _torch_runner(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # seconds, and of use here only

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


_RUNNERS: dict[GraphFormat, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "torch": _torch_runner,
    "onnx": _onnx_runner,
}


def _remedy(size: Size | None) -> str:
    if size is None:
        return "fix the size of its images with `--size HEIGHT WIDTH`, or leave this format out"
    return "leave this format out"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
