"""Whole segmentors: every framework, with and without memory, on a small encoder."""

import pytest
import torch
from helpers.model_benchmarks import small_benchmark

from pipeline.checkpoints.key_names import from_published
from pipeline.errors import PipelineError
from pipeline.models import build_segmentor, start_from
from pipeline.models.context import FRAMEWORKS

K = 5
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_framework_with_memory = pytest.mark.parametrize("framework", [n for n in FRAMEWORKS if n != "upernet"])
MEMORIES = {
    "plain": None,
    "memory": {},
    "two-slots": {"slots": 2},
    "direct": {"fusion": "direct"},
    "residual": {"fusion": "residual"},
    "depth": {"content": "none", "fusion": "direct"},
}
each_memory = pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)


def segmentor(framework="fcn", memory=None, **config):
    torch.manual_seed(0)
    return build_segmentor(small_benchmark(framework, memory, **config), K)


@each_framework_with_memory
@each_memory
def test_training_returns_every_supervised_map_at_feature_resolution(framework, memory):
    output = segmentor(framework, memory).train()(IMAGES)
    assert output.logits.shape == (2, K, 4, 6)  # stride 16
    assert [maps.shape for maps in output.auxiliary] == [(2, K, 8, 12)]  # the map before it
    if memory is None:
        assert output.coarse is None
        assert output.representations is None
    else:
        assert output.coarse.shape == (2, K, 4, 6)
        assert output.representations.shape == (2, 16, 4, 6)


@each_framework_with_memory
@each_memory
def test_every_parameter_receives_a_gradient(framework, memory):
    model = segmentor(framework, memory).train()
    if memory is not None:
        model.memory.memory = torch.rand_like(model.memory.memory)
    output = model(IMAGES)
    supervised = (output.logits, output.coarse, *output.auxiliary)
    sum(logits.square().sum() for logits in supervised if logits is not None).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@each_framework_with_memory
def test_evaluation_leaves_memory_and_auxiliary_alone_and_is_deterministic(framework):
    model = segmentor(framework, {}).eval()
    before = model.memory.memory.clone()
    with torch.no_grad():
        first, second = model(IMAGES), model(IMAGES)
    assert first.auxiliary == ()
    assert torch.equal(model.memory.memory, before)
    assert torch.equal(first.logits, second.logits)


def test_plain_ocrnet_takes_its_objects_from_the_auxiliary_head():
    model = segmentor("ocrnet").eval()
    with torch.no_grad():
        before = model(IMAGES).logits
        model.auxiliary[0][-1].weight.normal_(std=10)
        assert not torch.allclose(model(IMAGES).logits, before)


@each_framework
def test_context_within_the_image_can_be_switched_off(framework):
    model = segmentor(framework, {"context_within_image": False})
    assert model.context is None
    assert model.memory.context_attention is None
    assert model(IMAGES).logits.shape == (2, K, 4, 6)


@each_framework_with_memory
def test_with_residual_fusion_the_rest_of_the_network_is_the_one_without_memory(framework):
    plain, residual = segmentor(framework), segmentor(framework, {"fusion": "residual"})
    own = {name for name in residual.state_dict() if name.startswith(("memory.", "coarse_decoder."))}
    shapes = {name: values.shape for name, values in residual.state_dict().items() if name not in own}
    pixels = {name for name in shapes if name.startswith("pixel_representation.")}  # that the memory augments
    expected = {name: values.shape for name, values in plain.state_dict().items()}
    assert expected == {name: shape for name, shape in shapes.items() if name in expected}
    assert set(shapes) - set(expected) <= pixels


def test_the_final_decoder_classifies_every_memory_vector():
    model = segmentor("fcn", {"slots": 2}).train()
    model.memory.memory = torch.rand(K, 2, 16)
    assert model.classify_memory().shape == (2 * K, K)


@each_framework_with_memory
@each_memory
def test_a_configuration_can_be_tried_on_the_meta_device(framework, memory):
    with torch.device("meta"):
        model = segmentor(framework, memory)
        output = model(torch.empty(2, 3, 64, 96))
    assert output.logits.shape == (2, K, 4, 6)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_framework_options_reach_the_context_module():
    assert len(segmentor("deeplabv3", options={"dilations": [1, 6]}).context.branches) == 2
    assert len(segmentor("pspnet", options={"bins": [1, 2, 3]}).context.branches) == 3


REFUSED = [
    ("deeplabv3plus", None, {}, "did you mean `deeplabv3`"),
    ("deeplabv3", None, {"options": {"dilation": [1]}}, "segmentor.options: dilation: unknown key.* `dilations`"),
    ("fcn", None, {"auxiliary": [{"feature": -5}]}, r"auxiliary.feature: this encoder has no map -5; .*\[-1, -2, -3"),
    ("fcn", None, {"auxiliary": [{"feature": -6}]}, "auxiliary.feature"),
    ("ocrnet", None, {"auxiliary": []}, "segmentor.auxiliary: ocrnet without memory"),
    ("upernet", {}, {}, "segmentor.framework: the context of upernet is finer"),
]


@pytest.mark.parametrize(("framework", "memory", "config", "message"), REFUSED)
def test_an_impossible_segmentor_is_refused(framework, memory, config, message):
    with pytest.raises(PipelineError, match=message):
        segmentor(framework, memory, **config)


def test_a_feature_pyramid_needs_four_maps():
    config = small_benchmark("upernet", None)
    shallow = config.encoder.model_copy(update={"depth": 3})
    with pytest.raises(PipelineError, match=r"segmentor.framework: needs 4 maps of the encoder, and depth 3 gives 3"):
        build_segmentor(config.model_copy(update={"encoder": shallow}), K, pretrained=False)


def test_a_damaged_file_to_start_from_is_named(tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"half a file")
    with pytest.raises(PipelineError, match=r"last.safetensors: damaged .*delete it"):
        start_from(segmentor("fcn"), tmp_path / "last.safetensors")


def test_there_may_be_no_auxiliary_head_or_several():
    assert segmentor("fcn", auxiliary=[]).train()(IMAGES).auxiliary == ()
    heads = [{"feature": -3, "channels": 8}, {"feature": -2, "channels": 8, "convs": 2, "upsample": 4}]
    output = segmentor("fcn", auxiliary=heads).train()(IMAGES)
    assert [maps.shape[2:] for maps in output.auxiliary] == [(16, 24), (8 * 16, 12 * 16)]


def test_the_logits_are_at_the_finest_map_of_upernet_and_at_half_the_last_one_with_downsampling():
    assert segmentor("upernet").train()(IMAGES).logits.shape == (2, K, 32, 48)
    assert segmentor("fcn", {}, downsample=True).train()(IMAGES).logits.shape == (2, K, 2, 3)


def test_feature_norm_makes_every_position_of_every_map_zero_mean():
    model = segmentor("fcn", {}, feature_norm=True)
    maps = model._feature_maps(IMAGES)
    assert all(m.mean(dim=1).abs().max() < 1e-5 for m in maps[1:])
    assert torch.equal(maps[0], IMAGES)


def test_published_weights_of_another_network_are_refused():
    model = segmentor("fcn")
    with pytest.raises(PipelineError, match="backbone is not supported"):
        from_published({"backbone_net.patch_embed.weight": torch.zeros(1)}, model.state_dict())
    with pytest.raises(PipelineError, match=r"missing .* 1 unexpected \(decoder.9.bias"):
        from_published({"decoder.9.bias": torch.zeros(K)}, model.state_dict())
