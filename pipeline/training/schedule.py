"""Learning rate and memory momentum as functions of the iteration (PROTOCOL section 3, METHOD section 4)."""

from __future__ import annotations

from pipeline.config.schema import MemoryConfig, OptimizerConfig, ScheduleConfig


def poly_lr(iteration: int, total: int, optimizer: OptimizerConfig, schedule: ScheduleConfig) -> float:
    """lr(t) = (lr0 - floor) * (1 - t/T)^power + floor for t = `iteration` in 0..`total`-1."""
    floor = 0.01 * optimizer.lr if schedule.min_lr is None else schedule.min_lr
    return (optimizer.lr - floor) * (1 - iteration / total) ** schedule.power + floor


def memory_momentum(lr: float, memory: MemoryConfig, optimizer: OptimizerConfig) -> float:
    """Share of the new class vector in the blend: fixed, or proportional to this iteration's learning rate."""
    if memory.momentum_schedule == "fixed":
        return memory.momentum
    return memory.momentum / (memory.base_lr or optimizer.lr) * lr
