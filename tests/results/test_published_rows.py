"""The published rows of `params/*.yaml`."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from helpers.golden_recipe import ROOT

from pipeline.config import benchmark_ids, load_benchmark
from pipeline.models import build_segmentor
from pipeline.models.context import framework_options
from pipeline.training.optimizer import memory_momentum, poly_lr

ROWS = [name for name in benchmark_ids(ROOT) if load_benchmark(ROOT, name).published]
PLUSPLUS_ROWS = [row for row in ROWS if row.startswith("pp-")]
MEMORY_ROWS = [row for row in ROWS if not row.startswith(("base-", "pp-"))]
CLASSES = {"ade20k": 150, "cocostuff10k": 182, "cityscapes": 19, "lip": 20}
SPEC = Path(os.environ.get("SPEC", ROOT.parent / "shared" / "spec" / "benchmarks.yaml"))
# The protocol of the published ms+flip numbers of MCIBI++ on LIP.
LIP_IN_WINDOWS = {
    "mode": "slide",
    "crop_hw_as_executed": [473, 473],
    "stride_hw": [315, 315],
    "scales": [0.75, 1.0, 1.25],
    "flip": True,
    "use_probs_before_resize": True,
}
# Of the published files, counters of batch norm included.
ENTRIES = {"resnet50os8": 481, "resnet101os8": 787, "resnest101os8": 1084, "hrnetv2w48": 1973, "vitlarge": 485}


def meta_segmentor(row):
    benchmark = load_benchmark(ROOT, row)
    with torch.device("meta"):
        return build_segmentor(benchmark, CLASSES[benchmark.dataset.name], pretrained=False)


def test_there_are_eighteen_rows_of_mcibi_and_29_of_its_successor():
    assert (len(MEMORY_ROWS), len(PLUSPLUS_ROWS)) == (18, 29)


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
    resolved = load_benchmark(ROOT, row).model_dump(mode="json")
    for question in load_benchmark(ROOT, row).published.open_questions:
        value = resolved
        for part in question.key.split("."):
            value = value[part]


@pytest.mark.skipif(not SPEC.is_file(), reason="no specification on this machine")
@pytest.mark.parametrize("row", ROWS)
def test_row_is_what_the_specification_says(row):
    entry = next(e for e in yaml.safe_load(SPEC.read_text())["entries"] if e["id"] == row)
    benchmark = load_benchmark(ROOT, row)
    assert benchmark.published.checkpoints[0] == entry["checkpoint_url"]
    assert benchmark.published.model_zoo.single_scale == entry["published_model_zoo"]["single_scale"]
    assert (benchmark.schedule.epochs, benchmark.schedule.batch_size) == (entry["epochs"], entry["batch_size"])
    if entry["family"] == "baseline":
        assert benchmark.optimizer.lr == entry["lr"]
        return
    assert list(benchmark.augmentation.crop) == entry["crop_hw"]
    assert entry["eval_split"] == benchmark.dataset.evaluation_split
    assert entry["train_split"] == "".join(benchmark.dataset.train_splits)
    assert CLASSES[benchmark.dataset.name] == entry["num_classes"]
    optimizer, total = entry["optimizer"], entry.get("total_iterations", 1000)
    assert (benchmark.optimizer.lr, benchmark.optimizer.weight_decay) == (optimizer["lr"], optimizer["weight_decay"])
    rules = optimizer["params_rules"].get("backbone_net", {"lr_multiplier": 1.0})
    assert benchmark.optimizer.encoder_lr_multiplier == rules["lr_multiplier"]
    last = poly_lr(total, total, benchmark.optimizer, benchmark.schedule)
    assert last == pytest.approx(entry["schedule"]["min_lr"])
    assert len(benchmark.segmentor.auxiliary) == len(entry["aux_heads"] or [])
    specified = {"single_scale": entry["inference_single_scale"], "ms_flip": entry["inference_tta"]}
    if any(note.startswith("ms+flip column: test resize 520x520") for note in entry.get("notes", ())):
        specified["ms_flip"] = LIP_IN_WINDOWS  # of the published number; the configuration has flip alone
        assert benchmark.inference.ms_flip.resize.size == (520, 520)
    for name, protocol in specified.items():
        if protocol is not None:
            assert as_specified(getattr(benchmark.inference, name)) == protocol
    first = memory_momentum(benchmark.optimizer.lr, benchmark.memory, benchmark.optimizer)
    if entry["family"] == "mcibi++":
        undecayed = {"norm", "relative_position_bias_table"} <= set(optimizer["params_rules"])
        assert benchmark.optimizer.decay_encoder_norms == (not undecayed)
        assert benchmark.schedule.power == entry["schedule"]["power"]
        warmup = entry["schedule"]["warmup"] or {"iters": 0, "ratio": 1e-6}
        found = (benchmark.schedule.warmup_iterations, benchmark.schedule.warmup_ratio)
        assert found == (warmup["iters"], warmup["ratio"])
        assert first == entry["mcibi_pp"]["update_cfg"]["base_momentum"]
        specified = {key: entry["mcibi_pp"][key] for key in DISTRIBUTION}
        if specified["fpn"]:  # the width of the last map, which some files have wrong, is not used
            specified["fpn"] = specified["fpn"] | {"in_channels_list": specified["fpn"]["in_channels_list"][:-1]}
        assert distribution_as_specified(benchmark) == specified
        return
    assert first == pytest.approx(entry["mcibi"]["update_cfg"]["initial_momentum"])
    assert (benchmark.loss.consistency > 0) == entry["mcibi"]["use_loss"]
    assert benchmark.segmentor.downsample == (entry["mcibi"]["downsample_stride"] == 2)
    assert benchmark.segmentor.feature_norm == entry["mcibi"]["per_output_layernorm"]
    assert benchmark.segmentor.options["dilations"] == entry["mcibi"]["context_within_image"]["dilations"]


DISTRIBUTION = ("downsample_before_sa", "force_use_preds_pr", "context_within_image", "fpn", "decoder")


def distribution_as_specified(benchmark):
    """The entries DISTRIBUTION of the specification that belong to this benchmark."""
    head, model = benchmark.memory.head, meta_segmentor(benchmark.id)
    modules = {"pr": model.coarse_decoder, "cwi": model.context_decoder, "cls": model.final_decoder}
    context = {"pspnet": {"type": "ppm", "pool_scales": [1, 2, 3, 6]}}
    context["deeplabv3"] = {"type": "aspp", "dilations": [1, 12, 24, 36]}
    within = context.get(benchmark.segmentor.framework)
    widths = list(model.encoder.out_channels[-4:-1])
    return {
        "downsample_before_sa": head.halved,
        "force_use_preds_pr": head.weights_from == "coarse",
        "context_within_image": within and within | {"use_self_attention": benchmark.memory.fusion == "attention"},
        "fpn": head.pyramid and {"in_channels_list": widths, "feats_channels": 1024, "out_channels": head.pyramid},
        "decoder": {name: as_decoder(module) for name, module in modules.items() if module is not None},
    }


def as_decoder(module):
    first, size = module[0], module[0].kernel_size[0]
    widths = {"in_channels": first.in_channels, "out_channels": first.out_channels}
    return widths | {"dropout": module[3].p, "kernel_size": size, "padding": first.padding[0]}


def as_specified(protocol):
    window = {"crop_hw_as_executed": list(protocol.crop), "stride_hw": list(protocol.stride)} if protocol.crop else {}
    return {
        "mode": protocol.mode,
        "scales": list(protocol.scales),
        "flip": protocol.flip,
        "use_probs_before_resize": protocol.average == "probabilities",
        **window,
    }
