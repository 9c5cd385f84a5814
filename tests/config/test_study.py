"""The plan of a study: many variants from one file, with every mistake in it named."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.project import ROOT, write_yaml
from helpers.small_study import STUDY, changed

from pipeline.config import config_hash
from pipeline.config.study import load_plan
from pipeline.datasets.prepared import subsample
from pipeline.errors import PipelineError


@pytest.mark.parametrize("size", ["small", "full"])
def test_every_variant_of_the_committed_study_is_another_network_or_training(size):
    plan = load_plan(ROOT, "camvid", size)
    hashes = {config_hash(benchmark) for benchmark in plan.benchmarks.values()}
    assert len(hashes) == len(plan.config.variants)
    assert {variant for variant, _ in plan.runs} == set(plan.config.variants)


def test_a_variant_changes_what_it_says_of_the_one_it_is_made_of(project):
    write_yaml(project / "studies" / "try.yaml", STUDY)
    plan = load_plan(project, "try", "short")
    assert plan.benchmarks["plain"].memory is None
    assert plan.benchmarks["random"].memory.content == "random"
    assert plan.benchmarks["random"].id == "try-short-random"
    assert plan.runs == (("plain", 0), ("memory", 0), ("random", 0))


def test_a_start_is_part_of_the_configuration_and_needs_the_same_encoder(project):
    study = changed("variants.warm", {"group": "all", "title": "warm", "of": "memory", "start": "plain"})
    write_yaml(project / "studies" / "try.yaml", study)
    plan = load_plan(project, "try", "short")
    assert plan.benchmarks["warm"].start.config_hash == config_hash(plan.benchmarks["plain"])
    assert config_hash(plan.benchmarks["warm"]) != config_hash(plan.benchmarks["memory"])
    study["variants"]["warm"]["set"] = {"encoder": {"output_stride": 8}}
    write_yaml(project / "studies" / "try.yaml", study)
    with pytest.raises(PipelineError, match="the encoder of 'plain' is another one"):
        load_plan(project, "try", "short")


def test_less_data_trains_for_more_epochs(project):
    study = changed("variants.half", {"group": "all", "title": "half", "of": "plain", "epochs_times": 2})
    write_yaml(project / "studies" / "try.yaml", study)
    schedule = load_plan(project, "try", "short").benchmarks["half"].schedule
    assert (schedule.epochs, schedule.validate_every) == (2, 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("variants.memory.of", "plian", "variants.memory.of: unknown name 'plian'; did you mean `plain`?"),
        ("variants.plain.of", "memory", "variants.plain.of: 'memory' must be listed above it"),
        ("comparisons.memory.pairs", [["plain", "memori"]], "unknown name 'memori'; did you mean `memory`?"),
        ("comparisons.memory.pairs", [], "comparisons.memory.pairs: Tuple should have at least 1 item"),
        ("sizes.short.order", [{"groups": ["al"], "seeds": [0]}], "unknown name 'al'; did you mean `all`?"),
        ("sizes.short.order", [{"groups": ["all"], "seeds": [1, 1]}], "order.0.seeds: 1 is listed more than once"),
        ("sizes.short.set", {"schedule": 3}, "sizes.short.set: schedule: Input should be a valid dictionary"),
        ("variants.memory.set", {"memry": {}}, "variants.memory: memry: unknown key; did you mean `memory`?"),
        ("variants.memory.start", "plian", "variants.memory.start: unknown name 'plian'; did you mean `plain`?"),
        ("variants.plain.start", "memory", "variants.plain.start: 'memory' must be listed above it"),
        ("variants.memory.set", {"start": {"benchmark": "x", "config_hash": "y"}}, "name the variant in `start`"),
        ("variants.memory.titel", "x", "titel: unknown key; did you mean `title`?"),
    ],
)
def test_a_mistake_in_the_study_names_the_key_and_the_nearest_valid_one(project, path, value, message):
    write_yaml(project / "studies" / "try.yaml", changed(path, value))
    with pytest.raises(PipelineError) as error:
        load_plan(project, "try", "short")
    assert str(error.value).startswith("studies/try.yaml: ")
    assert message in str(error.value)


def test_mistakes_of_all_variants_are_listed_at_once_each_where_it_is(project):
    study = changed("variants.memory.set", {"memory": {"slot": 2}})
    study["variants"]["random"]["set"] = {"los": {}}
    study["variants"]["other"] = {"group": "all", "title": "?", "of": "plan"}
    study["sizes"]["short"]["set"]["schedul"] = {}
    write_yaml(project / "studies" / "try.yaml", study)
    with pytest.raises(PipelineError) as error:
        load_plan(project, "try", "short")
    assert [line.partition("; ")[0] for line in str(error.value).splitlines()] == [
        "studies/try.yaml: variants.other.of: unknown name 'plan'",
        "studies/try.yaml: sizes.short.set: schedul: unknown key",
        "studies/try.yaml: variants.memory: memory.slot: unknown key",
        "studies/try.yaml: variants.random: los: unknown key",
    ]


def test_an_unknown_size_lists_those_there_are():
    with pytest.raises(PipelineError, match="unknown size 'medium'; valid sizes: small, full"):
        load_plan(ROOT, "camvid", "medium")


def test_a_smaller_share_of_the_training_data_is_part_of_every_larger_one():
    rows = pd.DataFrame({"id": range(40)})
    eighth, half = (set(subsample(rows, share, seed=3)["id"]) for share in (0.125, 0.5))
    assert len(eighth) == 5
    assert len(half) == 20
    assert eighth < half
    assert eighth != set(subsample(rows, 0.125, seed=4)["id"])
