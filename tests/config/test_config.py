"""Configuration: what is accepted, and how mistakes are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT, edit_yaml, write_yaml

from pipeline.config import (
    config_hash,
    load_benchmark,
    load_project,
    load_resolved,
    resolved_yaml,
)
from pipeline.config.overlay import overlay
from pipeline.config.parse import parse, read_yaml
from pipeline.config.schema import Benchmark
from pipeline.errors import PipelineError


def benchmark(data: dict[str, Any]) -> Benchmark:
    return parse(Benchmark, {"id": "tiny", **data}, "params/tiny.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": {"epoch": 3}}, r"params/tiny.yaml: schedule.epoch: unknown key; did you mean `epochs`\?"),
        ({"encoder": {"zzz": 3}}, "encoder.zzz: unknown key; valid keys: depth, name, options, output"),
        ({"optimizer": {"lr": "fast"}}, r"optimizer.lr: .*number.* \(found 'fast'\)"),
        ({"optimizer": {"lr": float("nan")}}, r"optimizer.lr: .*number.* \(found nan\)"),
        ({"loss": {"consistency": 1.0}}, "loss.consistency classifies the memory: add a `memory:` section"),
        ({"inference": {"cascade": "mean"}}, "inference.cascade reads the memory twice: add a `memory:` section"),
        (
            {"inference": {"cascade": "mean", "single_scale": {"mode": "slide", "crop": [8, 8], "stride": [4, 4]}}},
            "cascade passes on the map of a whole image; use mode: whole",
        ),
        (
            {"memory": {"kind": "distribution"}, "loss": {"consistency": 1.0}},
            "loss.consistency classifies class vectors, which kind: distribution has not",
        ),
        ({"memory": {"head": {"halved": True}}}, "memory: .*head: belongs to kind: distribution"),
        ({"memory": {"kind": "distribution", "slots": 2}}, "memory: .*slots: only kind: features has a choice there"),
        ({"memory": {"kind": "distribution", "content": "batch"}}, "content: batch needs kind: features"),
        ({"inference": {"single_scale": {"mode": "slide"}}}, "single_scale: mode: slide needs `crop` and `stride`"),
        (
            {"inference": {"single_scale": {"mode": "slide", "crop": [64, 64], "stride": [65, 64]}}},
            "would skip pixels",
        ),
        (
            {"memory": {}, "optimizer": {"lr": 0.01}, "schedule": {"min_lr": 0.02}},
            "memory.base_lr: .* is 1.8 at the highest, 0.02,",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_key_and_the_remedy(tiny: dict[str, Any], change: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        benchmark(overlay(tiny, change))


def test_a_learning_rate_that_makes_the_memorys_momentum_more_than_a_share_is_an_error() -> None:
    load_benchmark(ROOT, "cityscapes-resnet50os8", {"optimizer": {"lr": 0.01}})  # 0.9 / 0.009 * 0.01 is 1
    message = r"memory.base_lr: .*0.009 is 3 at the highest, 0.03, .*set memory.base_lr to 0.027 or more"
    with pytest.raises(PipelineError, match=message):
        load_benchmark(ROOT, "cityscapes-resnet50os8", {"optimizer": {"lr": 0.03}})


def test_the_remedy_for_too_large_a_momentum_is_accepted(tiny: dict[str, Any]) -> None:
    tiny |= {"memory": {"momentum": 0.7, "base_lr": 0.001}, "optimizer": {"lr": 1 / 3}}
    with pytest.raises(PipelineError) as error:
        benchmark(tiny)
    tiny["memory"]["base_lr"] = float(str(error.value).partition("memory.base_lr to ")[2].split()[0])
    benchmark(tiny)


def test_a_momentum_that_does_not_follow_the_learning_rate_is_no_matter_of_it(tiny: dict[str, Any]) -> None:
    for memory in ({"momentum_schedule": "fixed"}, {"content": "random"}):
        tiny["memory"] = memory | {"base_lr": 1e-4}
        benchmark(tiny)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seeds: [0]\nseeds: [1]\n", r"duplicate key 'seeds' \(line 2\): keep one"),
        (b"base: &base {lr: 1}\nown: {<<: *base, lr: 2, lr: 3}\n", r"duplicate key 'lr' \(line 2\): keep one"),
        (b"a: 1\n# caf\xe9\n", r"a.yaml: line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: {{x}}\n", r"a.yaml: .*braces or brackets as a key; put a text with braces in quotes.* line 2,"),
        (
            b"a: 1\nb: 2020-13-45\n",
            r"a.yaml: .*'2020-13-45' is not a valid timestamp \(month must .*quotes.* line 2,",
        ),
        (b"a: 1\nb: !!int many\n", r"a.yaml: .*'many' is not a valid int .* line 2,"),
    ],
)
def test_what_is_not_yaml_names_file_line_and_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_a_merge_into_what_is_merged_itself_repeats_no_key(tmp_path: Path) -> None:
    lines = ["base: &base {lr: 1, power: 2}", "of:", "  middle: &middle {<<: *base, lr: 3}", "own: {<<: *middle}"]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    data = read_yaml(tmp_path / "a.yaml")
    assert data["own"] == data["of"]["middle"] == {"lr": 3, "power": 2}


def test_missing_benchmark_file_names_the_nearest(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"tiny-fnc.yaml: no such file; did you mean tiny-fcn.yaml\?"):
        load_benchmark(project, "tiny-fnc")


def test_ablation_is_laid_over_the_benchmark(project: Path) -> None:
    changed = load_benchmark(project, "tiny-fcn-mcibi", {"memory": {"strategy": "mean"}, "loss": {"coarse": 0.1}})
    assert changed.memory is not None
    assert (changed.memory.strategy, changed.loss.coarse) == ("mean", 0.1)


def test_ablation_null_leaves_the_benchmarks_own_value(project: Path) -> None:
    plain = load_benchmark(project, "tiny-fcn-mcibi")
    assert load_benchmark(project, "tiny-fcn-mcibi", {"memory": {"strategy": None}}) == plain


def test_ablation_of_the_memory_leaves_a_benchmark_without_memory_as_it_is(project: Path) -> None:
    plain = load_benchmark(project, "tiny-fcn")
    assert load_benchmark(project, "tiny-fcn", {"memory": {"strategy": "mean"}}) == plain


def test_ablation_typo_is_an_error_even_where_the_section_is_absent(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"ablation.memory.strtegy: unknown key; did you mean `strategy`\?"):
        load_benchmark(project, "tiny-fcn", {"memory": {"strtegy": "mean"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seds": [1]}, r"params.yaml: seds: unknown key; did you mean `seeds`\?"),
        ({"seeds": [0, 1, 0]}, "params.yaml: seeds: 0 is listed more than once; list each seed once"),
        (
            {"runtime": {"device": "cuda:0", "devices": 2}},
            "params.yaml: runtime: device: cuda:0 .*devices: 2.*; set device: cuda,",
        ),
    ],
)
def test_a_mistake_in_params_yaml_is_refused(project: Path, change: dict[str, Any], message: str) -> None:
    edit_yaml(project / "params.yaml", **change)
    with pytest.raises(PipelineError, match=message):
        load_project(project)


@pytest.mark.parametrize("runtime", [{"device": "cuda:1"}, {"device": "cuda", "devices": 2}, {"devices": 2}])
def test_each_process_has_a_device(project: Path, runtime: dict[str, Any]) -> None:
    edit_yaml(project / "params.yaml", runtime=runtime)
    load_project(project)


def test_resolved_benchmark_reads_back_equal(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    (tmp_path / "tiny.yaml").write_text(resolved_yaml(tiny_benchmark))
    assert load_resolved(tmp_path / "tiny.yaml") == tiny_benchmark


def test_hash_ignores_what_cannot_move_the_weights(tiny_benchmark: Benchmark, tiny: dict[str, Any]) -> None:
    tiny["description"] = "said differently"
    tiny["published"] = {"paper": {"single_scale": 44.39}}
    tiny["inference"]["ms_flip"] = {"scales": [1.0, 1.5], "flip": True}
    assert config_hash(benchmark(tiny)) == config_hash(tiny_benchmark)
    tiny |= {"memory": {}}
    cascaded = tiny | {"inference": tiny["inference"] | {"cascade": "mean"}}
    assert config_hash(benchmark(cascaded)) == config_hash(benchmark(tiny))


def test_hash_moves_with_what_moves_the_weights(tiny_benchmark: Benchmark, tiny: dict[str, Any]) -> None:
    tiny["segmentor"]["dropout"] = 0.2
    assert config_hash(benchmark(tiny)) != config_hash(tiny_benchmark)


def test_identity_is_the_file_name(project: Path, tiny: dict[str, Any]) -> None:
    write_yaml(project / "params" / "other.yaml", {"id": "tiny", **tiny})
    with pytest.raises(PipelineError, match="the file's name is the benchmark's id"):
        load_benchmark(project, "other")
