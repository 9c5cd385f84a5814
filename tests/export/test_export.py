"""Exporting a model: a card that suffices, refusals of what does not fit, graphs that compute the same."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.model_benchmarks import SMALL_ENCODER, small_benchmark
from helpers.project import edit_json
from helpers.trained_run import SCORES, lively, write_run, write_scores
from safetensors.torch import load_file
from timm.layers import Conv2dSame
from torch import nn

from pipeline import __main__ as commands
from pipeline.config import Benchmark
from pipeline.config.schema import MemoryConfig
from pipeline.datasets import get_dataset
from pipeline.errors import PipelineError
from pipeline.export import export
from pipeline.export.card import card_path, read_card
from pipeline.export.export import export_model
from pipeline.export.graph import ENDINGS, MatrixPooling, SamePadding, compare, trace, write_graph
from pipeline.export.source import describe_run, find_model
from pipeline.layout import Layout
from pipeline.models import build_segmentor
from pipeline.models.segmentor import SegmentorOutput


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    """With weights of less than a megabyte."""
    return tiny | {"encoder": SMALL_ENCODER}


@pytest.fixture
def exported(tmp_path: Path, tiny_benchmark: Benchmark) -> Path:
    """The weight file of an export; the project it came from is gone."""
    project, out = tmp_path / "project", tmp_path / "out"
    write_run(project, tiny_benchmark)
    export_model(project, "tiny/0", out, (), None)
    shutil.rmtree(project)
    return out / "tiny-seed0.safetensors"


def edit_card(weights: Path, **changes: Any) -> None:
    edit_json(card_path(weights), **changes)


def test_weights_and_card_suffice_where_the_project_has_no_run(exported: Path, tmp_path: Path) -> None:
    source = find_model(tmp_path, str(exported))
    assert all(torch.equal(value, load_file(exported)[key]) for key, value in source.load().state_dict().items())
    assert source.card.palette == get_dataset("digits").palette


def test_the_card_has_the_protocol_and_the_scores_of_these_very_weights(
    tmp_path: Path, tiny_benchmark: Benchmark
) -> None:
    write_run(tmp_path, tiny_benchmark)
    write_scores(tmp_path, tiny_benchmark, run_key="of an earlier training")
    assert describe_run(Layout(tmp_path), "tiny", 0)[0].evaluation is None
    Layout(tmp_path).resolved("tiny").unlink()  # the plan has moved on to other benchmarks
    write_scores(tmp_path, tiny_benchmark)
    card, weights = describe_run(Layout(tmp_path), "tiny", 0)
    assert asdict(card.evaluation.single_scale) == SCORES
    assert (card.evaluation.split, card.evaluation.images) == ("test", 200)
    assert card.benchmark.inference == tiny_benchmark.inference
    assert weights == tmp_path / "runs/train/tiny/0/last.safetensors"
    assert card.classes == get_dataset("digits").classes


def test_the_readme_has_the_hubs_metadata_and_the_scores_with_their_intervals(
    tmp_path: Path, tiny_benchmark: Benchmark
) -> None:
    write_run(tmp_path, tiny_benchmark)
    write_scores(tmp_path, tiny_benchmark)
    export_model(tmp_path, "tiny/0", tmp_path / "out", (), None)
    text = (tmp_path / "out" / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    (result,) = metadata["model-index"][0]["results"]
    assert metadata["pipeline_tag"] == "image-segmentation"
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    assert result["metrics"][0]["value"] == round(100 * SCORES["miou"], 2)
    low, high = (f"{100 * SCORES[f'miou_{end}']:.2f}" for end in ("low", "high"))
    assert f"| single scale | {100 * SCORES['miou']:.2f} | {low} to {high} |" in text


def test_a_readme_of_another_origin_is_kept(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    write_run(tmp_path, tiny_benchmark)
    mine = tmp_path / "out" / "README.md"
    mine.parent.mkdir()
    mine.write_text("my words\n")
    export_model(tmp_path, "tiny/0", mine.parent, (), None)
    assert mine.read_text() == "my words\n"


def test_a_run_without_a_known_protocol_is_refused(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    write_run(tmp_path, tiny_benchmark, planned=False)
    with pytest.raises(PipelineError, match=r"name tiny in params\.yaml and run `dvc repro`"):
        describe_run(Layout(tmp_path), "tiny", 0)


def test_a_cascade_cannot_be_exported(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    twice = {"memory": MemoryConfig(), "inference": tiny_benchmark.inference.model_copy(update={"cascade": "mean"})}
    write_run(tmp_path, tiny_benchmark.model_copy(update=twice))
    with pytest.raises(PipelineError, match=r"inference.cascade: mean takes two passes, .* set it to none"):
        describe_run(Layout(tmp_path), "tiny", 0)


def test_the_checkpoint_is_the_one_that_the_benchmark_tests(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    inference = tiny_benchmark.inference.model_copy(update={"checkpoint": "best"})
    write_run(tmp_path, tiny_benchmark.model_copy(update={"inference": inference}))
    assert describe_run(Layout(tmp_path), "tiny", 0)[1].name == "best.safetensors"


def test_an_unknown_run_lists_those_there_are(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    write_run(tmp_path, tiny_benchmark)
    with pytest.raises(PipelineError, match=r"no such run, .*; did you mean `tiny/0`\?"):
        find_model(tmp_path, "tinny/0")


def test_changed_weights_are_refused(exported: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-1])
    with pytest.raises(PipelineError, match=r"tiny-seed0\.safetensors: sha256 .*, but its card says"):
        read_card(exported)


def test_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(PipelineError, match=r"a\.json: no such file; an exported model is two files"):
        read_card(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pallete": []}, "pallete: unknown key; did you mean `palette`"),
        ({"preprocessing": {"mean": [0.5] * 3}}, r"preprocessing: mean is \(0\.5, 0\.5, 0\.5\), but this version"),
    ],
    ids=["unknown key", "another normalisation"],
)
def test_a_card_that_this_version_cannot_follow_is_refused(exported: Path, change: Any, problem: str) -> None:
    edit_card(exported, **change)
    with pytest.raises(PipelineError, match=rf"tiny-seed0\.json: {problem}"):
        read_card(exported)


@pytest.fixture
def trained_again(tmp_path: Path, tiny_benchmark: Benchmark) -> Path:
    """The folder of an export from `tmp_path`, whose run has other weights since."""
    write_run(tmp_path, tiny_benchmark)
    export_model(tmp_path, "tiny/0", tmp_path / "out", (), None)
    run = tmp_path / "runs" / "train" / "tiny" / "0"
    shutil.copy(run / "best.safetensors", run / "last.safetensors")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_graph_that_would_stay_is_refused_before_anything_changes(tmp_path: Path, trained_again: Path) -> None:
    (trained_again / "tiny-seed0.onnx").write_bytes(b"of an earlier export")
    before = contents(trained_again)
    with pytest.raises(PipelineError, match=r"onnx: a graph of an earlier export; write it again with `--format onnx`"):
        export_model(tmp_path, "tiny/0", trained_again, (), None)
    assert contents(trained_again) == before


def test_an_export_that_fails_leaves_the_earlier_one_as_it_was(
    tmp_path: Path, trained_again: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(network: nn.Module, size: object) -> None:
        raise PipelineError("the network cannot be traced")

    before = contents(trained_again)
    monkeypatch.setattr(export, "trace", untraceable)
    with pytest.raises(PipelineError, match="cannot be traced"):
        export_model(tmp_path, "tiny/0", trained_again, ("torch",), None)
    assert contents(trained_again) == before


class Small(nn.Module):
    """A network that exports in a moment, with a buffer and the two layers that graphs have no operator for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = Conv2dSame(3, 4, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.register_buffer("memory", torch.randn(1, 4, 1, 1))

    def forward(self, images: torch.Tensor) -> SegmentorOutput:
        maps = self.conv(images)
        around = nn.functional.interpolate(self.pool(maps), size=maps.shape[2:], mode="bilinear")
        return SegmentorOutput(maps + around + self.memory, None, (), None)


@pytest.mark.parametrize("bins", [2, 3, 6])
@pytest.mark.parametrize("size", [(12, 18), (7, 11), (4, 5), (1, 1)])
def test_pooling_by_matrices_is_adaptive_pooling(bins: int, size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size)
    torch.testing.assert_close(MatrixPooling(bins)(maps), nn.AdaptiveAvgPool2d(bins)(maps))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2), (2, 2, 1)])
@pytest.mark.parametrize("size", [(12, 18), (7, 11), (1, 2)])
def test_same_padding_in_integers_is_timms(kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
    conv, maps = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation), torch.randn(2, 3, *size)
    torch.testing.assert_close(SamePadding(conv)(maps), conv(maps))


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_graph_computes_what_the_network_does(tmp_path: Path, format: str) -> None:
    model, path = Small().eval(), tmp_path / f"graph{ENDINGS[format]}"
    write_graph(trace(model, None), format, path, None)
    assert compare(model, format, path, None)[0] < 1e-5
    model.memory += 0.1
    with pytest.raises(PipelineError, match=r"logits differ from the network's by up to 0\.1"):
        compare(model, format, path, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "encoder"),
    [
        *((framework, SMALL_ENCODER) for framework in ("fcn", "pspnet", "deeplabv3", "ocrnet")),
        ("fcn", {"name": "tu-tf_efficientnet_lite0", "depth": 3}),  # same padding
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_networks_with_memory_export_for_any_size(tmp_path: Path, framework: str, encoder: dict[str, Any]) -> None:
    model = lively(build_segmentor(small_benchmark(framework, memory={}, encoder=encoder), 5))
    program = trace(model, None)
    for format, ending in ENDINGS.items():
        write_graph(program, format, tmp_path / f"graph{ending}", None)
        difference, deviation = compare(model, format, tmp_path / f"graph{ending}", None)
        assert difference < 1e-4 * deviation


@pytest.mark.slow
def test_the_command_writes_graphs_and_notes_how_close_they_are(
    tmp_path: Path, tiny_benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    write_run(tmp_path, tiny_benchmark)
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    arguments = ["--model", "runs/train/tiny/0", "--format", "torch", "onnx", "--size", "64", "96"]
    commands.main(["export", "--out", str(tmp_path / "out"), *arguments])
    assert capsys.readouterr().out.count("compared with the network on 64x96, largest difference") == 2
    card = read_card(tmp_path / "out" / "tiny-seed0.safetensors")
    assert [(graph.format, graph.size) for graph in card.graphs] == [("torch", (64, 96)), ("onnx", (64, 96))]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "tiny-seed0.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 96]
    images = np.zeros((3, 3, 64, 96), np.float32)
    assert session.run(["logits"], {"images": images})[0].shape == (3, len(card.classes), 4, 6)
