"""Configuration: what is accepted, and how mistakes are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, edit_yaml, write_yaml

from pipeline.config import config_hash, for_training, load_benchmark, load_project, load_resolved, resolved_yaml
from pipeline.config.parse import parse, read_yaml
from pipeline.config.schema import Benchmark
from pipeline.errors import PipelineError


def benchmark(data: dict[str, Any]) -> Benchmark:
    return parse(Benchmark, {"id": "tiny", **data}, "params/tiny.yaml")


def test_every_shipped_benchmark_is_valid() -> None:
    ids = [path.stem for path in (ROOT / "params").glob("*.yaml")]
    assert len(ids) >= 6
    for benchmark_id in ids:
        assert load_benchmark(ROOT, benchmark_id).id == benchmark_id


def test_unknown_key_names_file_key_and_nearest_valid_key(tiny: dict[str, Any]) -> None:
    tiny["schedule"]["epoch"] = 3
    with pytest.raises(PipelineError, match=r"params/tiny.yaml: schedule.epoch: unknown key; did you mean `epochs`\?"):
        benchmark(tiny)


def test_unknown_key_without_a_near_one_lists_the_valid_keys(tiny: dict[str, Any]) -> None:
    tiny["encoder"]["zzz"] = 3
    with pytest.raises(PipelineError, match=r"encoder.zzz: unknown key; valid keys: depth, name, options, output"):
        benchmark(tiny)


def test_wrong_type_names_key_and_value(tiny: dict[str, Any]) -> None:
    tiny["optimizer"] = {"lr": "fast"}
    with pytest.raises(PipelineError, match=r"optimizer.lr: .*valid number.* \(found 'fast'\)"):
        benchmark(tiny)


def test_all_mistakes_of_a_file_are_reported_at_once(tiny: dict[str, Any]) -> None:
    tiny["schedule"]["epoch"] = 3
    tiny["segmentor"]["dropout"] = 1.5
    with pytest.raises(PipelineError) as error:
        benchmark(tiny)
    assert "schedule.epoch" in str(error.value)
    assert "segmentor.dropout" in str(error.value)


def test_consistency_loss_without_memory_is_an_error(tiny: dict[str, Any]) -> None:
    tiny["loss"] = {"consistency": 1.0}
    with pytest.raises(PipelineError, match=r"loss.consistency classifies the memory: add a `memory:` section"):
        benchmark(tiny)


def test_sliding_window_needs_crop_and_stride(tiny: dict[str, Any]) -> None:
    tiny["inference"]["single_scale"] = {"mode": "slide"}
    with pytest.raises(PipelineError, match=r"single_scale: mode: slide needs `crop` and `stride`"):
        benchmark(tiny)


def test_a_stride_that_skips_pixels_is_an_error(tiny: dict[str, Any]) -> None:
    tiny["inference"]["single_scale"] = {"mode": "slide", "crop": [64, 64], "stride": [65, 64]}
    with pytest.raises(PipelineError, match="would skip pixels"):
        benchmark(tiny)


def test_not_a_number_is_an_error(tiny: dict[str, Any]) -> None:
    tiny["optimizer"] = {"lr": float("nan")}
    with pytest.raises(PipelineError, match=r"optimizer.lr"):
        benchmark(tiny)


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seeds: [0]\nseeds: [1]\n")
    with pytest.raises(PipelineError, match=r"'seeds' stands twice \(line 2\)"):
        read_yaml(tmp_path / "a.yaml")


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


def test_ablation_value_of_the_wrong_type_names_the_ablation(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"params/tiny-fcn.yaml with params.yaml ablation: schedule.epochs"):
        load_benchmark(project, "tiny-fcn", {"schedule": {"epochs": "many"}})


def test_misspelt_key_in_params_yaml(project: Path) -> None:
    edit_yaml(project / "params.yaml", seds=[1])
    with pytest.raises(PipelineError, match=r"params.yaml: seds: unknown key; did you mean `seeds`\?"):
        load_project(project)


def test_resolved_benchmark_reads_back_equal(tmp_path: Path, tiny_benchmark: Benchmark) -> None:
    (tmp_path / "tiny.yaml").write_text(resolved_yaml(tiny_benchmark))
    assert load_resolved(tmp_path / "tiny.yaml") == tiny_benchmark


def test_hash_ignores_what_cannot_move_the_weights(tiny_benchmark: Benchmark, tiny: dict[str, Any]) -> None:
    tiny["description"] = "said differently"
    tiny["published"] = {"seed": {"single_scale": 44.39}}
    tiny["inference"]["ms_flip"] = {"scales": [1.0, 1.5], "flip": True}
    assert config_hash(benchmark(tiny)) == config_hash(tiny_benchmark)


def test_hash_moves_with_what_moves_the_weights(tiny_benchmark: Benchmark, tiny: dict[str, Any]) -> None:
    tiny["segmentor"]["dropout"] = 0.2
    assert config_hash(benchmark(tiny)) != config_hash(tiny_benchmark)


def test_training_part_keeps_the_validation_protocol(tiny: dict[str, Any]) -> None:
    tiny["inference"]["single_scale"] = {"scales": [0.5]}
    assert for_training(benchmark(tiny)).inference.single_scale.scales == (0.5,)


def test_identity_is_the_file_name(project: Path, tiny: dict[str, Any]) -> None:
    write_yaml(project / "params" / "other.yaml", {"id": "tiny", **tiny})
    with pytest.raises(PipelineError, match="the file's name is the benchmark's id"):
        load_benchmark(project, "other")
