"""The published rows of `params/*.yaml`."""

import functools

import pytest
import torch
from helpers.project import ROOT

from pipeline.config import benchmark_ids, load_benchmark
from pipeline.config.overlay import dotted
from pipeline.models import build_segmentor
from pipeline.models.context import framework_options
from pipeline.results.published import changed_keys, published_benchmarks, published_rows

ROW = "ade20k-resnet50os8"
ROWS = [name for name in benchmark_ids(ROOT) if load_benchmark(ROOT, name).published]
PLUSPLUS_ROWS = [row for row in ROWS if row.startswith("pp-")]
MEMORY_ROWS = [row for row in ROWS if not row.startswith(("base-", "pp-"))]
CLASSES = {"ade20k": 150, "cocostuff10k": 182, "cityscapes": 19, "lip": 20}
# Of the published files, counters of batch norm included.
ENTRIES = {"resnet50os8": 481, "resnet101os8": 787, "resnest101os8": 1084, "hrnetv2w48": 1973, "vitlarge": 485}


@functools.cache
def meta_segmentor(row):
    benchmark = load_benchmark(ROOT, row)
    with torch.device("meta"):
        return build_segmentor(benchmark, CLASSES[benchmark.dataset.name], pretrained=False)


def test_there_are_18_rows_and_29_of_the_successor_and_their_baselines_are_apart():
    benchmarks = published_benchmarks(ROOT)
    found = published_rows(benchmarks)
    assert [row.memory.kind for row in found].count("features") == 18
    assert len(found) == 18 + 29
    assert {row.dataset.name for row in found} == {"ade20k", "cityscapes", "cocostuff10k", "lip"}
    assert all(b.id.startswith("base-") for b in benchmarks if b not in found)


def test_only_what_makes_a_number_counts_as_a_change():
    file = load_benchmark(ROOT, ROW)
    assert changed_keys(file, load_benchmark(ROOT, ROW, {"mode": "train", "description": "mine"})) == []
    ablation = {"memory": {"strategy": "mean"}, "encoder": {"options": {"x": 1}}}
    assert changed_keys(file, load_benchmark(ROOT, ROW, ablation)) == ["encoder.options.x", "memory.strategy"]


@pytest.mark.parametrize("row", MEMORY_ROWS)
def test_the_network_has_as_many_entries_as_the_published_file(row):
    halved = 6 if load_benchmark(ROOT, row).segmentor.downsample else 0
    assert len(meta_segmentor(row).state_dict()) == ENTRIES[row.partition("-")[2]] + halved


@pytest.mark.parametrize("row", MEMORY_ROWS)
def test_the_memory_is_one_untrained_vector_of_512_per_class(row):
    memory = meta_segmentor(row).memory.memory
    assert memory.shape == (CLASSES[load_benchmark(ROOT, row).dataset.name], 1, 512)
    assert not memory.requires_grad


@pytest.mark.parametrize("row", [row for row in PLUSPLUS_ROWS if row.startswith("pp-lip") and "50os8-" not in row])
def test_a_distribution_memory_is_two_numbers_per_class(row):
    memory = meta_segmentor(row).memory.memory
    assert memory.shape == (CLASSES[load_benchmark(ROOT, row).dataset.name], 2)
    assert not memory.requires_grad


def test_only_the_lip_resnets_have_a_leaky_head_and_none_a_leaky_encoder():
    leaky = [row for row in ROWS if load_benchmark(ROOT, row).segmentor.activation == "leaky_relu"]
    assert leaky == ["lip-resnet101os8", "lip-resnet50os8"]
    model = meta_segmentor("lip-resnet50os8")
    assert not any(isinstance(m, torch.nn.LeakyReLU) for m in model.encoder.modules())
    assert any(isinstance(m, torch.nn.LeakyReLU) for m in model.context.modules())


def test_aspp_dilations_which_no_weight_shows():
    small = [row for row in MEMORY_ROWS if load_benchmark(ROOT, row).segmentor.options["dilations"] == [1, 6, 12, 18]]
    assert small == ["ade20k-vitlarge"]
    questions = load_benchmark(ROOT, "cocostuff10k-vitlarge").published.open_questions
    assert "segmentor.options.dilations" in [question.key for question in questions]


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith("base-")])
def test_baselines_have_the_dilations_and_the_dropout_of_the_toolbox(row):
    segmentor = load_benchmark(ROOT, row).segmentor
    if segmentor.framework == "deeplabv3":
        dilations = framework_options(segmentor).dilations
        assert dilations == ((1, 6, 12, 18) if "os16" in row else (1, 12, 24, 36))
    assert segmentor.dropout == (0.0 if segmentor.framework == "ocrnet" else 0.1)


def test_every_hrnet_row_runs_without_the_first_stem_relu_and_says_why():
    for row in (row for row in ROWS if "hrnetv2w48" in row):
        benchmark = load_benchmark(ROOT, row)
        assert benchmark.encoder.options == {"stem_relu": False}
        assert "encoder.options.stem_relu" in [question.key for question in benchmark.published.open_questions]


def test_cityscapes_windows_are_executed_higher_than_wide():
    protocol = load_benchmark(ROOT, "cityscapes-resnet50os8").inference.ms_flip
    assert (protocol.crop, protocol.stride) == ((1024, 512), (341, 341))


@pytest.mark.parametrize("row", [*MEMORY_ROWS, *PLUSPLUS_ROWS])
def test_open_questions_name_keys_of_the_benchmark(row):
    benchmark = load_benchmark(ROOT, row)
    asked = {question.key for question in benchmark.published.open_questions}
    assert asked <= dotted(benchmark.model_dump(mode="json")).keys()
