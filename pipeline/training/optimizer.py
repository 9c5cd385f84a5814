"""Optimiser, learning rate and memory momentum (docs/method.md, "Training schedule")."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.config.schema import MemoryConfig, OptimizerConfig, ScheduleConfig
from pipeline.models import Segmentor

_NORMS = ("norm", "relative_position_bias_table")  # in the names of an encoder's norms and position biases


def build_optimizer(model: Segmentor, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over encoder and head, each with and without weight decay.

    Every group carries `lr_multiplier`, for the scheduled rate. The memory is a buffer and therefore in no group.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_encoder = name.startswith("encoder.")
            decayed = config.decay_norm_and_bias or parameter.ndim > 1
            if in_encoder and not config.decay_encoder_norms and any(part in name for part in _NORMS):
                decayed = False
            groups.setdefault((in_encoder, decayed), []).append(parameter)
    param_groups = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr_multiplier": config.encoder_lr_multiplier if in_encoder else 1.0,
        }
        for (in_encoder, decayed), parameters in groups.items()
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(param_groups, lr=config.lr, betas=config.betas)
    return torch.optim.SGD(param_groups, lr=config.lr, momentum=config.momentum)


def poly_lr(iteration: int, total: int, optimizer: OptimizerConfig, schedule: ScheduleConfig) -> float:
    """lr(t) = (lr0 - floor) * (1 - t/T)^power + floor for t = `iteration` in 0..`total`-1.

    In the first W = `schedule.warmup_iterations` times a factor that rises linearly from `warmup_ratio` at 0 to 1 at W.
    """
    floor = 0.01 * optimizer.lr if schedule.min_lr is None else schedule.min_lr
    decayed = (optimizer.lr - floor) * (1 - iteration / total) ** schedule.power + floor
    if iteration >= schedule.warmup_iterations:
        return decayed
    return decayed * (schedule.warmup_ratio + (1 - schedule.warmup_ratio) * iteration / schedule.warmup_iterations)


def memory_momentum(lr: float, memory: MemoryConfig, optimizer: OptimizerConfig) -> float:
    """Share of the new class vector in the blend: fixed, or proportional to this iteration's learning rate."""
    if memory.momentum_schedule == "fixed":
        return memory.momentum
    return memory.momentum / (memory.base_lr or optimizer.lr) * lr
