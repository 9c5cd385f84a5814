"""The authors' toolbox itself beside ours, with equal weights (`make toolbox`): no file of theirs is needed."""

import pytest
import torch
from helpers.golden_recipe import TERMS
from helpers.model_benchmarks import trainer_of

pytest.importorskip("ssseg", reason="the authors' toolbox is not installed; run `make toolbox`")

from benchmarks.networks import ROOT, labels
from benchmarks.toolbox import their_label_map, their_logits, their_optimizer, their_step, twins
from pipeline.config import benchmark_ids, load_benchmark
from pipeline.config.schema import ProtocolConfig
from pipeline.evaluation.views import predict
from pipeline.models.distribution import DistributionMemory, class_codes
from pipeline.training.step import training_step

pytestmark = pytest.mark.slow

CLASSES = 19


def as_released(row, **changes):
    """The row; its HRNet with the ReLU that the released toolbox has."""
    if load_benchmark(ROOT, row).encoder.name == "hrnetv2-w48":
        changes["encoder"] = {"options": {"stem_relu": True}}
    return load_benchmark(ROOT, row, changes)


def different_networks():
    """One published row of each network: rows of several datasets share theirs."""
    found = {}
    for row in benchmark_ids(ROOT):
        config = load_benchmark(ROOT, row)
        if config.published is not None:
            memory = config.memory and (config.memory.kind, config.memory.fusion, config.memory.head)
            found.setdefault(repr((config.encoder, config.segmentor, memory)), row)
    return sorted(found.values())


@pytest.mark.parametrize("row", different_networks())
def test_logits_are_the_authors(row):
    theirs, ours = twins(as_released(row), CLASSES)
    images = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = their_logits(theirs, images), ours(images).logits
    assert relative_error(found, expected) < 1e-5


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.std()).item()


@pytest.fixture
def float64():
    """For all that is drawn, too: their distribution memory draws its codes anew in every pass."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "row",
    ["ade20k-resnet50os8", "lip-resnet50os8", "cityscapes-hrnetv2w48", "pp-ade20k-resnet50os8-upernet"],
)
def test_training_steps_in_float64_are_the_authors(row, float64):
    """Four steps over two epochs: every loss, and the memory after it."""
    config = as_released(row, segmentor={"dropout": 0.0}, optimizer={"lr": 1e-4}, memory={"base_lr": 1e-4})
    theirs, ours = (network.double().train() for network in twins(config, CLASSES))
    if isinstance(ours.memory, DistributionMemory):
        ours.memory.codes = class_codes(*ours.memory.codes.shape, dtype=torch.float64)
    trainer, optimizer = trainer_of(config, ours, total=40), their_optimizer(theirs, config)
    for step in range(4):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        target, epoch = labels(64, 2, CLASSES), 1 + step // 2
        found = training_step(trainer, [(images, target)], step, epoch)
        expected = their_step(theirs, optimizer, images, target, found["lr"], epoch)
        assert float(found["loss"]) == pytest.approx(expected["loss_total"], rel=1e-7)
        for term in TERMS.keys() & expected.keys():
            assert float(found[f"loss_{TERMS[term]}"]) == pytest.approx(expected[term], rel=1e-7), (step, term)
        assert relative_error(ours.memory.memory, theirs.memory_module.memory) < 1e-6


WINDOWS = {"mode": "slide", "crop": (48, 64), "stride": (32, 48)}
SCALES = {"scales": (0.75, 1.0, 1.5), "flip": True}


@pytest.mark.parametrize(
    "protocol",
    [{}, SCALES, SCALES | {"average": "probabilities"}, WINDOWS | SCALES, WINDOWS | {"average": "probabilities"}],
    ids=["whole", "whole, ms+flip", "whole, ms+flip, probabilities", "slide, ms+flip", "slide, probabilities"],
)
def test_label_maps_are_the_authors(protocol):
    pairs, size, protocol = ((14, 15), (16, 17)), (130, 170), ProtocolConfig(**protocol)
    assert agreement("lip-resnet50os8", protocol, size, pairs, passes=1) > 0.9999


def test_label_maps_of_the_cascade_are_the_authors():
    # Without mirrored views: they hand those the average of the straight ones as it is.
    protocol = ProtocolConfig(scales=(0.75, 1.0, 1.25), average="probabilities")
    assert agreement("pp-ade20k-resnet50os8-aspp", protocol, (130, 170), (), passes=2) > 0.9999


@torch.no_grad()
def agreement(row, protocol, size, pairs, passes):
    """Share of pixels with equal labels."""
    theirs, ours = twins(load_benchmark(ROOT, row), CLASSES)
    image = torch.randn(1, 3, 65, 85, generator=torch.Generator().manual_seed(4))
    means = their_logits(theirs, image).mean(dim=(0, 2, 3))
    their_classifier = theirs.decoder_stage2[-1] if hasattr(theirs, "decoder_stage2") else theirs.decoder_cls.conv2
    for classifier in (their_classifier, ours.final_decoder[-1]):
        classifier.bias -= means  # of a random network one class would win everywhere
    expected = their_label_map(theirs, image, protocol, size, pairs, passes)
    assert len(expected.unique()) > 5
    (found,) = predict(ours, image, {"p": protocol}, size, pairs, "none" if passes == 1 else "authors")["p"]
    return (found == expected).float().mean().item()
