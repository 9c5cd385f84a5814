"""Learning rate, memory momentum and weight decay."""

from __future__ import annotations

import pytest
from torch import nn

from pipeline.config.schema import MemoryConfig, OptimizerConfig, ScheduleConfig
from pipeline.models.encoders.swin_large import SwinEncoder
from pipeline.training.optimizer import build_optimizer, memory_momentum, poly_lr

OPTIMIZER = OptimizerConfig(lr=0.01)


def test_poly_follows_the_published_values() -> None:
    # goldens/training: 4 iterations, lr 0.01, power 0.9, floor 1 %
    schedule = ScheduleConfig(epochs=2, batch_size=4)
    expected = [0.01, 0.0077417061165633485, 0.005405278639554652, 0.002943028428617661]
    assert [poly_lr(t, 4, OPTIMIZER, schedule) for t in range(4)] == pytest.approx(expected, rel=1e-12)
    schedule = ScheduleConfig(epochs=1, batch_size=2, min_lr=0.001)
    assert poly_lr(10**6 - 1, 10**6, OPTIMIZER, schedule) == pytest.approx(0.001, rel=1e-3)  # ends at the floor


def test_warm_up_multiplies_the_decayed_rate_by_a_factor_that_rises_linearly() -> None:
    plain = ScheduleConfig(epochs=1, batch_size=2)
    warm = ScheduleConfig(epochs=1, batch_size=2, warmup_iterations=4, warmup_ratio=0.2)
    factors = [poly_lr(t, 20, OPTIMIZER, warm) / poly_lr(t, 20, OPTIMIZER, plain) for t in range(20)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)


@pytest.mark.parametrize(
    ("memory", "initial_lr", "lr", "expected"),
    [
        (MemoryConfig(momentum=0.9), 0.01, 0.01, 0.9),
        (MemoryConfig(momentum=0.9), 0.01, 0.005, 0.45),
        (MemoryConfig(momentum=0.9, base_lr=0.0009), 0.001, 0.001, 1.0),  # the COCO-Stuff rows
        (MemoryConfig(momentum=0.3, momentum_schedule="fixed"), 0.01, 1e-5, 0.3),
    ],
)
def test_memory_momentum_follows_the_learning_rate_unless_fixed(memory, initial_lr, lr, expected) -> None:
    assert memory_momentum(lr, memory, OptimizerConfig(lr=initial_lr)) == pytest.approx(expected)


def undecayed(**config: bool) -> set[str]:
    """Names of the parameters that the optimiser does not decay, of a network whose encoder is a Swin."""
    model = nn.ModuleDict({"encoder": SwinEncoder(0.0, "swin_tiny_patch4_window7_224"), "head": nn.BatchNorm2d(2)})
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", weight_decay=0.01, **config))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = [group for group in optimizer.param_groups if group["weight_decay"] == 0]
    return {names[id(parameter)] for group in free for parameter in group["params"]}


def test_every_parameter_is_decayed_unless_norms_and_biases_or_those_of_the_encoder_are_left_out() -> None:
    assert undecayed() == set()
    encoders = undecayed(decay_encoder_norms=False)
    assert all("norm" in name or name.endswith("relative_position_bias_table") for name in encoders)
    assert "encoder.model.layers.0.blocks.0.attn.relative_position_bias_table" in encoders
    assert "encoder.model.norm3.bias" in encoders
    assert not any(name.startswith("head.") or name.endswith("qkv.bias") for name in encoders)
    both = undecayed(decay_norm_and_bias=False)
    assert {"head.weight", "head.bias", "encoder.model.layers.0.blocks.0.attn.qkv.bias"} <= both
