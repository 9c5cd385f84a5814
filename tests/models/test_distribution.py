"""The distribution memory of MCIBI++: its class vectors, its update, and the network around it."""

from __future__ import annotations

import pytest
import torch
from helpers.dense_memory import dense_distribution_update
from helpers.model_benchmarks import small_benchmark
from helpers.published_files import published_key
from helpers.tensors import features, random_labels

from pipeline.checkpoints.key_names import from_published
from pipeline.errors import PipelineError
from pipeline.models import build_segmentor
from pipeline.models.distribution import DistributionMemory, class_codes

K, C = 5, 6
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def module(**options):
    torch.manual_seed(0)
    return DistributionMemory(K, C, attention_channels=4, fuse_context=False, **options)


def segmentor(framework="deeplabv3", **memory):
    torch.manual_seed(0)
    return build_segmentor(small_benchmark(framework, {"kind": "distribution", "fusion": "direct", **memory}), K)


def test_each_class_has_a_code_of_its_own_and_the_global_generator_is_not_touched():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    codes = class_codes(K, C)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(codes[3:4], torch.randn(1, C, generator=torch.Generator().manual_seed(3)))
    assert codes.unique(dim=0).shape == (K, C)


def test_a_vector_is_the_mean_and_deviation_times_the_code():
    memory = module()
    assert torch.equal(memory.vectors()[:, 0], memory.codes)  # at first mean 0 and deviation 1
    memory.memory = torch.tensor([[1.0, 2.0]] * K)
    torch.testing.assert_close(memory.vectors()[:, 0], 1 + 2 * memory.codes)


def test_the_update_at_feature_resolution_is_that_of_upsampled_features():
    memory = module().train()
    for step in range(3):
        representations, labels = features(2, C, 5, 7, seed=step), random_labels((2, 33, 45), K - 1, seed=step)
        expected = dense_distribution_update(memory.memory, representations, labels, 0.1)
        memory.update(representations, labels, momentum=0.1)
        torch.testing.assert_close(memory.memory, expected, rtol=1e-5, atol=1e-6)
    assert memory.memory[K - 1].tolist() == [0, 1]  # in no batch
    assert memory.written().flatten().tolist() == [True] * (K - 1) + [False]


def test_a_batch_in_two_parts_gives_the_memory_of_the_whole():
    whole, parts = module().train(), module().train()
    representations, labels = features(4, C, 5, 5), random_labels((4, 20, 20), K)
    whole.update(representations, labels, 0.1)
    parts.update_from([parts.statistics(representations[i : i + 2], labels[i : i + 2]) for i in (0, 2)], 0.1)
    torch.testing.assert_close(parts.memory, whole.memory)


def test_random_content_keeps_the_codes_as_they_are():
    random = module(content="random")
    assert not random.learns
    assert torch.equal(random.vectors()[:, 0], class_codes(K, C))
    assert module().learns


def test_it_is_frozen_in_evaluation_mode():
    with pytest.raises(RuntimeError, match="frozen in evaluation mode"):
        module().eval().update(features(1, C, 2, 2), random_labels((1, 4, 4), K), 0.1)


def test_a_network_that_was_built_without_content_has_its_codes_once_weights_are_loaded():
    with torch.device("meta"):
        empty = segmentor()
    empty.load_state_dict(segmentor().state_dict(), assign=True)
    assert torch.equal(empty.memory.codes, class_codes(K, 16))
    assert "memory.codes" not in empty.state_dict()


def test_the_authors_keys_of_every_part_are_ours():
    head = {"halved": True, "pyramid": 8}
    benchmark = small_benchmark("deeplabv3", {"kind": "distribution", "fusion": "attention", "head": head})
    ours = {key: v for key, v in build_segmentor(benchmark, K).state_dict().items() if not key.startswith("encoder.")}
    renamed = from_published({published_key(key, benchmark): value for key, value in ours.items()}, ours)
    assert all(torch.equal(renamed[key], value) for key, value in ours.items())


@pytest.mark.parametrize("framework", ["fcn", "pspnet", "deeplabv3", "ocrnet"])
@pytest.mark.parametrize("fusion", ["attention", "direct", "residual"])
def test_every_parameter_receives_a_gradient_from_the_supervised_maps(framework, fusion):
    model = segmentor(framework, fusion=fusion).train()
    if model.memory.gain is not None:
        model.memory.gain.data.fill_(1.0)
    output = model(IMAGES)
    maps = [output.logits, output.coarse, *output.auxiliary, *([] if output.context is None else [output.context])]
    assert len(maps) == (3 if framework == "fcn" else 4)
    sum(logits.square().sum() for logits in maps).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_classes_are_weighted_by_the_context_unless_asked_otherwise():
    for source, name in (("context", "context_logits"), ("coarse", "coarse")):
        model = segmentor(head={"weights_from": source}).eval()
        with torch.no_grad():
            head = model.head_input(IMAGES)
            assert torch.equal(model.class_weights(head), getattr(head, name).softmax(dim=1))


def test_kernels_widths_and_the_pyramid_are_those_of_the_configuration():
    model = segmentor(head={"coarse_kernel": 3, "context_kernel": 3, "final_kernel": 3, "pyramid": 8}).train()
    decoders = (model.coarse_decoder, model.context_decoder, model.final_decoder)
    assert [decoder[0].kernel_size for decoder in decoders] == [(3, 3)] * 3
    assert model.final_decoder[0].in_channels == 3 * 8 + 2 * 16
    assert model(IMAGES).logits.shape == (2, K, 32, 48)  # of the encoder's finest map, here at stride 2
    assert segmentor("fcn").final_decoder[0].in_channels == 16


def test_a_halved_memory_is_read_at_half_the_resolution_of_the_pixels():
    model, seen = segmentor(head={"halved": True}).eval(), []
    model.memory.memory_attention[0].register_forward_pre_hook(lambda _, inputs: seen.extend(m.shape for m in inputs))
    with torch.no_grad():
        assert model(IMAGES).logits.shape == (2, K, 4, 6)
    assert seen == [(2, 16, 2, 3)] * 2


def test_a_pyramid_on_too_few_maps_is_refused():
    benchmark = small_benchmark(
        "fcn",
        {"kind": "distribution", "head": {"pyramid": 8}},
        encoder={"name": "tu-mobilenetv3_small_050", "depth": 3},
    )
    with pytest.raises(PipelineError, match=r"memory.head.pyramid: needs 4 maps of the encoder, and depth 3 gives 3"):
        build_segmentor(benchmark, K)


@pytest.mark.parametrize(("cascade", "divisor"), [("mean", 3.5), ("authors", 2.5)])
def test_an_earlier_pass_weights_the_classes_too(cascade, divisor):
    network = segmentor().eval()
    earlier = features(2, K, 3, 3)
    with torch.no_grad():
        head = network.head_input(IMAGES)
        given = torch.nn.functional.interpolate(earlier, head.context_logits.shape[2:], mode="bilinear")
        weights = ((2 * head.context_logits + 1.5 * given) / divisor).softmax(dim=1)
        expected = network.read(head, weights)
        torch.testing.assert_close(network(IMAGES, earlier, cascade).logits, expected)
    assert not torch.allclose(expected, network(IMAGES).logits)
