"""Which encoders work: `python -m benchmarks.encoders` writes docs/encoders.md (half an hour).

Each is built as the encoder of an FCN with memory, with random weights, and made to do what a benchmark asks of it.
"""

from __future__ import annotations

import signal
import tempfile
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import segmentation_models_pytorch as smp
import timm
import torch
from tabulate import tabulate

from benchmarks.networks import ROOT, batch
from benchmarks.rows.training_step import make_trainer
from pipeline.config import load_benchmark
from pipeline.config.schema import Benchmark
from pipeline.errors import PipelineError
from pipeline.export.graph import compare, trace, write_graph
from pipeline.models import build_segmentor
from pipeline.models.encoder import check_sizes
from pipeline.models.encoders import encoder_names
from pipeline.training.step import training_step

# The smallest of every family of segmentation-models-pytorch, then families of timm that segmentation papers use.
FAMILIES = (
    *("resnet18", "resnext50_32x4d", "dpn68", "vgg11_bn", "se_resnet50", "densenet121", "inceptionresnetv2"),
    *("inceptionv4", "efficientnet-b0", "mobilenet_v2", "xception", "timm-efficientnet-b0", "timm-skresnet18"),
    *("timm-tf_efficientnet_lite0", "mit_b0", "mobileone_s0"),
    *("tu-resnet18", "tu-resnet50c", "tu-resnet50d", "tu-resnest14d", "tu-res2net50_26w_4s", "tu-resnetv2_50"),
    *("tu-wide_resnet50_2", "tu-seresnet50", "tu-regnety_002", "tu-regnetx_002", "tu-gernet_s", "tu-hrnet_w18_small"),
    *("tu-densenet121", "tu-dla34", "tu-vovnet39a", "tu-mobilenetv2_100", "tu-mobilenetv3_large_100"),
    *("tu-mobilenetv4_conv_small", "tu-efficientnet_b0", "tu-efficientnetv2_rw_t", "tu-tf_efficientnet_lite0"),
    *("tu-mnasnet_100", "tu-ghostnet_100", "tu-repvgg_a0", "tu-convnext_tiny", "tu-convnextv2_atto"),
    *("tu-nfnet_l0", "tu-edgenext_small", "tu-fastvit_t8", "tu-poolformerv2_s12", "tu-pvt_v2_b0", "tu-davit_tiny"),
    *("tu-focalnet_tiny_srf", "tu-swin_tiny_patch4_window7_224", "tu-swinv2_cr_tiny_224", "tu-maxvit_tiny_rw_224"),
    *("tu-coat_tiny", "tu-efficientformer_l1", "tu-nextvit_small", "tu-hiera_tiny_224", "tu-vit_tiny_patch16_224"),
    "tu-eva02_tiny_patch14_224",
)
_CROP, _ODD, _CLASSES = 64, (77, 71), 5
_PATIENCE = 300  # seconds for one export
_HEADER = ("encoder", "M parameters", "stride", "to 16, 8", "step", "odd size", "exported", "refused with")


def examine(name: str) -> tuple[str, ...]:
    """One row of the table. What the project refuses is in the last column; any other error is raised."""
    torch.manual_seed(0)
    sizes = {(_CROP, _CROP): "a training crop", _ODD: "a test image"}
    try:
        with torch.device("meta"):
            check_sizes(build_segmentor(_benchmark(name), _CLASSES, pretrained=False), name, sizes)
    except PipelineError as error:
        reason = str(error).partition("; ")[0].removeprefix("encoder.name: ")
        return (name, *("–",) * (len(_HEADER) - 2), reason)
    benchmark = _benchmark(name)
    model = build_segmentor(benchmark, _CLASSES, pretrained=False)
    with torch.no_grad():
        stride = _CROP // model.eval().encoder(torch.zeros(1, 3, _CROP, _CROP))[-1].shape[-1]
    _step(model, benchmark)
    model.eval()
    with torch.no_grad():
        odd = model(torch.randn(1, 3, *_ODD)).logits
    parameters = sum(p.numel() for p in model.encoder.parameters()) / 1e6
    shown = ["yes" if answer else "no" for answer in (odd.isfinite().all(), _exports(model))]
    return (name, f"{parameters:.1f}", str(stride), _dilates(name), "yes", *shown, "")


def _benchmark(name: str, stride: int | None = None) -> Benchmark:
    encoder = {"name": name, "weights": None, "depth": 5, "output_stride": stride}
    return load_benchmark(ROOT, "digits-fcn-mcibi", {"encoder": encoder})


def _dilates(name: str) -> str:
    """The strides among 16 and 8 to which the encoder can be dilated."""
    found = []
    for stride in (16, 8):
        try:
            with torch.device("meta"):
                build_segmentor(_benchmark(name, stride), _CLASSES, pretrained=False)
            found.append(str(stride))
        except PipelineError:
            continue
    return ", ".join(found) or "no"


def _step(model: torch.nn.Module, benchmark: Benchmark) -> None:
    """One training step with a finite loss; `training_step` raises PipelineError when it is not."""
    cpu = torch.device("cpu")
    trainer = make_trainer(model, cpu, "float32", benchmark)
    training_step(trainer, [batch(_CROP, 2, cpu, _CLASSES)], iteration=0, epoch=1)


def _exports(model: torch.nn.Module) -> bool:
    """Whether `export` writes, in time, a torch.export file for images of any size that agrees with the network."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), _limited():
        path = Path(folder) / "graph.pt2"
        try:
            write_graph(trace(model, None), "torch", path, None)
            compare(model, "torch", path, None)
        except (PipelineError, TimeoutError):
            return False
    return True


@contextmanager
def _limited() -> Iterator[None]:
    """TimeoutError after `_PATIENCE` seconds: with some networks torch.export does not come to an end."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def page(rows: Sequence[Sequence[str]]) -> str:
    """The text of docs/encoders.md."""
    versions = f"segmentation-models-pytorch {smp.__version__}, timm {timm.__version__}, torch {_version(torch)}"
    own = ", ".join(f"`{name}`" for name in encoder_names())
    how = (
        f"Made by `python -m benchmarks.encoders` ({versions}; CPU, float32, random weights). Each row is an FCN with "
        "memory. *Stride* is that of its encoder's last feature map with `depth: 5`, *to 16, 8* what "
        f"`encoder.output_stride` can ask for, *step* one training step on crops of {_CROP}x{_CROP}, *odd size* an "
        f"image of {_ODD[0]}x{_ODD[1]}. *Exported* is a torch.export file for images of any size, written within "
        f"{_PATIENCE} s and compared with the network."
    )
    refused = (
        "`plan` and `make check` run every chosen network without content at its crop and its test sizes, and refuse, "
        "with the reason, what cannot read them. An encoder that is refused here may work at other sizes, such as a "
        "transformer of timm at its own crop, with sliding windows. "
        f"All {len(smp.encoders.get_encoder_names())} encoders that segmentation-models-pytorch lists under its own "
        f"names can be built and read images of any size. The project's own are {own} "
        "([published rows](published-rows.md))."
    )
    table = tabulate(rows, _HEADER, tablefmt="github", disable_numparse=True)
    return f"# Encoders\n\n{textwrap.fill(how, 140)}\n\n{textwrap.fill(refused, 140)}\n\n{table}\n"


def _version(package: ModuleType) -> str:
    return str(package.__version__).partition("+")[0]


def main() -> None:
    """Examine every family and write the page."""
    warnings.simplefilter("ignore")
    rows = []
    for name in FAMILIES:
        rows.append(examine(name))
        print(*rows[-1], sep=" | ", flush=True)
    (ROOT / "docs/encoders.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
