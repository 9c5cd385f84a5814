"""Probes: each changes one thing about the memory of a trained network, and nothing of the network afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.model_benchmarks import small_benchmark
from helpers.trained_run import lively
from torch import Tensor, nn

from pipeline.config.schema import InferenceConfig, ProtocolConfig
from pipeline.datasets.loader import EvalSample
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.evaluation.probes import _Prober, class_shares, probes_of
from pipeline.evaluation.views import predict
from pipeline.models import Segmentor, build_segmentor
from pipeline.models.attention import AttentionBlock
from pipeline.results.record import PROBES

K, SIZE = 5, (48, 64)
WINDOWS = ProtocolConfig(mode="slide", crop=(32, 32), stride=(16, 32))


def network(memory: dict | None = None, framework: str = "deeplabv3") -> Segmentor:
    torch.manual_seed(0)
    model = lively(build_segmentor(small_benchmark(framework, memory or {}), K))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, AttentionBlock):  # with fresh weights it attends to all positions alike
            module.query_projection[-1][1].weight.data.fill_(30)
    with torch.no_grad():  # norms that know their input, so that pixels differ
        model.train()(torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3)))
    return model.eval()


def sample() -> tuple[Tensor, EvalSample]:
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, K, (6, 8)), np.ones((8, 8))).astype(np.uint8)  # (48, 64)
    label[:16] = IGNORE_INDEX
    image = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(2))
    return image[None], EvalSample(image, label, "scene", SIZE)


@torch.inference_mode()
def probed(
    model: Segmentor, protocol: ProtocolConfig | None = None
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Label maps by probe, and entropies."""
    image, one = sample()
    prober = _Prober(model, InferenceConfig(single_scale=protocol or ProtocolConfig()))
    return prober.classify(image, [one]), prober.entropies


@torch.inference_mode()
def predicted(model: Segmentor, protocol: ProtocolConfig | None = None) -> Tensor:
    return predict(model, sample()[0], {"s": protocol or ProtocolConfig()}, SIZE)["s"]


@pytest.mark.parametrize("protocol", [ProtocolConfig(), WINDOWS], ids=["whole image", "windows"])
def test_final_is_the_prediction_at_single_scale(protocol: ProtocolConfig) -> None:
    model = network()
    assert torch.equal(probed(model, protocol)[0]["final"], predicted(model, protocol))


def test_every_probe_of_a_lively_network_changes_its_prediction() -> None:
    maps, _ = probed(network())
    assert list(maps) == list(PROBES)
    assert [name for name, found in maps.items() if torch.equal(found, maps["final"])] == ["final"]


def test_zero_and_random_are_the_network_with_these_vectors_in_its_memory() -> None:
    model = network()
    maps, _ = probed(model)
    length = model.memory.memory.norm(dim=-1).mean()
    model.memory.memory = torch.zeros_like(model.memory.memory)
    assert torch.equal(predicted(model), maps["zero"])
    noise = torch.randn(model.memory.memory.shape, generator=torch.Generator().manual_seed(0)).relu()
    model.memory.memory = noise * (length / noise.norm(dim=-1).mean())
    assert torch.equal(predicted(model), maps["random"])


def test_zero_and_random_replace_the_vectors_of_a_distribution_memory_and_put_them_back() -> None:
    model = network({"kind": "distribution", "fusion": "direct"})
    vectors = model.memory.vectors()
    maps, _ = probed(model)
    assert torch.equal(model.memory.vectors(), vectors)
    model.memory.memory = torch.zeros_like(model.memory.memory)
    assert torch.equal(predicted(model), maps["zero"])


def test_shuffled_weights_are_as_good_as_a_shuffled_memory() -> None:
    model = network()
    maps, _ = probed(model)
    model.memory.memory = model.memory.memory.roll(-1, dims=0)  # a class's weight now reads the next class's vector
    assert torch.equal(predicted(model), maps["shuffled"])


def test_oracle_reads_the_memory_as_coarse_logits_that_are_right_would() -> None:
    model = network(framework="fcn")
    maps, _ = probed(model)
    image, one = sample()
    coarse = {}
    model.coarse_decoder.register_forward_hook(lambda module, inputs, output: coarse.setdefault("logits", output))
    with torch.inference_mode():
        model.head_input(image)
        truth = class_shares(torch.from_numpy(one.label).long()[None], coarse["logits"])  # (1, K, h, w)
        known = truth.sum(dim=1, keepdim=True) > 0
        assert 0 < known.float().mean() < 1  # cells without a valid pixel keep the network's own weights
        right = torch.where(known, truth.clamp(min=1e-30).log(), coarse["logits"])
        model.coarse_decoder.register_forward_hook(lambda module, inputs, output: right)
    assert torch.equal(predicted(model), maps["oracle"])


def test_the_encoder_runs_once_for_all_probes_and_the_network_stays_as_it_was() -> None:
    model, calls = network(), []
    before, memory = predicted(model), model.memory.memory
    hook = model.encoder.register_forward_hook(lambda *_: calls.append(1))
    probed(model)
    hook.remove()
    assert calls == [1]
    assert model.memory.memory is memory
    assert torch.equal(predicted(model), before)
    assert not any(block._forward_hooks for block in model.modules() if isinstance(block, AttentionBlock))


def test_a_memory_of_batch_means_has_no_vectors_to_replace_and_fcn_no_context() -> None:
    names = probes_of(network({"content": "batch"}, "fcn").memory)
    assert set(PROBES) - set(names) == {"zero", "random", "context_mean"}


def test_class_shares_are_means_over_the_valid_pixels_of_a_cell() -> None:
    labels = torch.tensor([[[0, 0, 2, IGNORE_INDEX], [0, 1, IGNORE_INDEX, IGNORE_INDEX]]])  # (1, 2, 4)
    shares = class_shares(labels, torch.zeros(1, 3, 1, 2))
    assert shares[0, :, 0].T.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    assert not class_shares(torch.full((1, 4, 4), IGNORE_INDEX), torch.zeros(1, 3, 2, 2)).any()


def test_entropy_is_one_for_equal_keys_and_near_zero_for_one_distinct_key(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = AttentionBlock(4, 4, "relu").eval()
    queries, keys = torch.rand(2, 4, 3, 5), torch.rand(2, 4, 6, 2)
    with torch.no_grad():
        assert torch.allclose(block.entropy(queries, torch.ones(2, 4, 6, 2)), torch.ones(2, 3, 5), atol=1e-6)
        keys[:, :, 0, 0] *= 1e5
        peaked = block.entropy(queries, keys)
        monkeypatch.setattr("pipeline.models.attention._WEIGHTS", 24)  # one query of each image at a time
        assert torch.allclose(block.entropy(queries, keys), peaked)
        assert block.entropy(queries, keys[:, :, :1, :1]).eq(0).all()  # a single position
    assert peaked.median() < 0.01  # a query whose projection is zero after its ReLU stays uniform


def test_entropies_are_noted_for_every_image_of_the_unchanged_network_alone() -> None:
    _, entropies = probed(network())
    assert set(entropies) == {"memory", "context"}
    assert all(len(values) == 1 and 0 < values[0] <= 1 for values in entropies.values())
