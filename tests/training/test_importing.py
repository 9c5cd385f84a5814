"""Importing a published checkpoint: strict, safe, and clear about what a file is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.miniature import ade20k, source
from helpers.project import ROOT, edit_yaml, prepare_all
from helpers.published_files import published_state, write_checkpoint, write_imagenet
from helpers.rows import THIN, make_rows_project, resolved, small_inference
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config import Benchmark, load_benchmark, load_project
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.layout import Layout
from pipeline.models import build_segmentor
from pipeline.tracking.runs import stage_run
from pipeline.tracking.store import load_mlflow, tracking_uri
from pipeline.tracking.sync import sync
from pipeline.training import importing
from pipeline.training.importing import import_benchmark, load_published
from pipeline.training.train import train_benchmark

ROW = "ade20k-resnet50os8"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose ADE20K rows on ResNet-50 and ResNet-101 have thin heads."""
    small = {"segmentor": THIN, "inference": small_inference()}
    return make_rows_project(
        tmp_path_factory.mktemp("importing") / "project", ade20k_resnet50os8=small, ade20k_resnet101os8=small
    )


@pytest.fixture(scope="module")
def row(project: Path) -> Benchmark:
    return load_benchmark(project, ROW)


@pytest.fixture(scope="module")
def published(row: Benchmark) -> dict[str, Tensor]:
    """The row's checkpoint; tests change copies of the dictionary."""
    return published_state(row)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.pth"


# --- what fits --------------------------------------------------------------------------------------------------------


def test_the_network_holds_the_weights_of_the_file(project, row, published, file) -> None:
    model = load_published(project, row, write_checkpoint(file, published))
    state = model.state_dict()
    assert len(state) == len(published) == 481
    assert torch.equal(state["encoder.model.layer4.2.conv3.weight"], published["backbone_net.layer4.2.conv3.weight"])
    assert torch.equal(state["memory.memory"], published["memory_module.memory"])
    assert "memory.memory" not in dict(model.named_parameters())


def test_auxiliary_heads_are_dropped_by_a_network_without_them(project, row, published, file) -> None:
    without = row.model_copy(update={"segmentor": row.segmentor.model_copy(update={"auxiliary": ()})})
    model = load_published(project, without, write_checkpoint(file, published))
    assert not [key for key in model.state_dict() if key.startswith("auxiliary")]


def test_half_precision_weights_become_float32(project, row, published, file) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in published.items()}
    model = load_published(project, row, write_checkpoint(file, half))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}


# --- what does not ----------------------------------------------------------------------------------------------------


def test_a_vit_with_another_grid_of_positions_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = load_benchmark(ROOT, "cocostuff10k-vitlarge")
    with torch.device("meta"):
        state = build_segmentor(benchmark, 182, pretrained=False).state_dict()
        state["encoder.model.pos_embed"] = torch.empty(1, 29 * 29 + 1, 1024)
    monkeypatch.setattr(importing, "from_published", lambda renamed, own: renamed)
    with pytest.raises(PipelineError, match=r"pos_embed is \(1, 842, 1024\), .*set `encoder: {options: {grid: 29}}`"):
        importing._fitted(benchmark, state)


def without(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(prefix)}


WHOLE = without("-")
KIND = "150 classes, ResNet-50/101 v1c of 3-4-6-3 blocks, 1 auxiliary head and a memory of 1 vector per class"
NAN = {"bottleneck.1.bias": torch.full((32,), torch.nan)}
REFUSED = {
    "missing key": (ROW, without("bottleneck.0.weight"), ["1 missing (pixel_representation.0.weight)"]),
    "unexpected key": (ROW, lambda state: state | {"extra.weight": torch.zeros(1)}, ["1 unexpected (extra.weight)"]),
    "no auxiliary head": (ROW, without("auxiliary_decoder."), ["missing (auxiliary.", "0 auxiliary heads"]),
    "another dataset": (
        "lip-resnet50os8",
        WHOLE,
        ["not the checkpoint of lip-resnet50os8", "tensors of another shape", KIND, f"it fits {ROW}."],
    ),
    "another backbone": ("ade20k-resnet101os8", WHOLE, ["missing (encoder.model.layer3.10", f"it fits {ROW}."]),
    "no benchmark": (
        ROW,
        lambda state: {"some.weight": torch.zeros(1)},
        ["no backbone of the authors", "fits no benchmark of params/"],
    ),
    "NaN": (ROW, lambda state: state | NAN, ["1 tensors hold NaN or infinity (pixel_representation.1.bias)"]),
}


@pytest.mark.parametrize(("benchmark", "change", "messages"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_does_not_fit_says_what_it_is(project, published, file, benchmark, change, messages) -> None:
    with pytest.raises(PipelineError) as caught:
        load_published(project, load_benchmark(project, benchmark), write_checkpoint(file, change(published)))
    assert [message for message in messages if message not in str(caught.value)] == []


# --- from plan to report ----------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path, published: dict[str, Tensor]) -> Path:
    """A project after preprocess, whose row is imported from a local file that never saw two of the classes."""
    root = make_rows_project(
        tmp_path / "project", ade20k_resnet50os8={"segmentor": THIN, "inference": small_inference()}
    )
    memory = published["memory_module.memory"].clone()
    memory[[3, 149]] = 0
    file = write_checkpoint(tmp_path / "checkpoint.pth", published | {"memory_module.memory": memory})
    edit_yaml(root / "params.yaml", sources={"ade20k": miniature(tmp_path)}, weights={ROW: str(file)})
    prepare_all(root)
    return root


def miniature(folder: Path, **images: int) -> dict[str, Any]:
    images = images or {"train": 2, "val": 2}
    return source(ade20k(folder, **images), **images)


def test_an_import_is_tracked_as_the_run_of_its_stage_with_the_evaluation_below(prepared: Path) -> None:
    runtime = load_project(prepared).runtime.model_copy(update={"mlflow": True})
    with stage_run(prepared, resolved(prepared, "train", ROW), 0, "train", runtime):
        folder = import_benchmark(prepared, resolved(prepared, "train", ROW), 0, runtime)
    with stage_run(prepared, resolved(prepared, "evaluate", ROW), 0, "evaluate-msflip", runtime):
        evaluate_benchmark(prepared, resolved(prepared, "evaluate", ROW), 0, runtime)
    summary = json.loads((folder / "summary.json").read_text())
    classes = get_dataset("ade20k").classes
    assert summary["untouched_memory"] == [classes[3], classes[149]]

    client = load_mlflow().MlflowClient(tracking_uri=tracking_uri(prepared))
    experiments = [e.experiment_id for e in client.search_experiments()]
    by_stage = {run.data.tags["stage"]: run for run in client.search_runs(experiments)}
    parent, train, evaluation = (by_stage[stage] for stage in ("parent", "train", "evaluate-msflip"))
    for run in (train, evaluation):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["complete"] == "true"
    for run in (parent, train, evaluation):
        assert run.data.tags["mode"] == "import"
        assert run.data.tags["checkpoint_sha256"] == summary["checkpoint"]["sha256"]
        assert run.data.tags["run_key"] == summary["run_key"]
    assert not train.inputs.dataset_inputs  # no image was read
    assert "miou_validation" not in train.data.metrics
    assert 0 <= parent.data.metrics["miou_ms_flip"] < 0.2
    assert {"miou_probe_coarse", "miou_probe_oracle", "attention_entropy_memory"} <= set(evaluation.data.metrics)
    assert sync(prepared) == []

    elsewhere = prepared.with_name("elsewhere")  # where DVC restored the results from its cache
    shutil.copytree(prepared / "runs", elsewhere / "runs")
    created = [line.partition(":")[0] for line in sync(elsewhere)]
    assert created == [f"train {ROW} seed 0", f"evaluate-msflip {ROW} seed 0"]
    assert sync(elsewhere) == []


def test_a_file_that_changed_has_another_rows_name_or_is_gone_is_refused(prepared: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(PipelineError, match=match):
            import_benchmark(prepared, resolved(prepared, "train", ROW), 0, load_project(prepared).runtime)

    file = Path(load_project(prepared).weights[ROW])
    file.write_bytes(file.read_bytes() + b" ")
    refused(r"but it was [0-9a-f]{64} when it was checked.*--force")
    other = file.rename(file.with_name("mcibi_deeplabv3_r50_lip.pth"))
    edit_yaml(prepared / "params.yaml", weights={ROW: str(other)})
    prepare_all(prepared)
    refused(f"checkpoint of lip-resnet50os8, not of {ROW}")
    other.unlink()
    refused(rf"are gone.*`weights: \{{{ROW}: PATH\}}` in params.yaml")


def test_a_row_trains_from_the_authors_imagenet_file(tmp_path: Path, row: Benchmark) -> None:
    root = make_rows_project(tmp_path / "project", ade20k_resnet50os8={})
    weights = write_imagenet(tmp_path / "resnet50.pth", row)
    short = {
        "mode": "train",
        "segmentor": THIN,
        "optimizer": {"lr": 1e-6},
        "schedule": {"epochs": 2, "batch_size": 2, "validate_every": 2},
        "augmentation": {"crop": [64, 64], "resize": {"long": 256, "short": 64}},
        "inference": small_inference(),
    }
    edit_yaml(
        root / "params.yaml",
        sources={"ade20k": miniature(tmp_path)},
        weights={"resnet50_v1c": str(weights)},
        ablation=short,
    )
    prepare_all(root)
    benchmark, runtime = resolved(root, "train", ROW), load_project(root).runtime
    assert benchmark.encoder.weights == "imagenet:resnet50_v1c"
    folder = train_benchmark(root, benchmark, 0, runtime, lambda step, values: None)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["mode"], summary["iterations"], summary["checkpoint"]) == ("train", 2, None)
    assert summary["weights"] == json.loads(Layout(root).index(ROW).read_text())["weights"]
    trained = load_file(folder / "last.safetensors")["encoder.model.layer1.0.conv1.weight"]
    started = torch.load(weights, weights_only=True)["state_dict"]["layer1.0.conv1.weight"]
    assert torch.allclose(trained, started, atol=1e-3)  # two steps at this rate leave it where the file put it
    evaluate_benchmark(root, resolved(root, "evaluate", ROW), 0, runtime)
