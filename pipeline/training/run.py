"""Train one benchmark with one seed, from the files of the plan and the prepared data to the files of `runs/train`."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import Benchmark, config_hash, resolved_yaml
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.datasets.loader import TrainLoader, eval_loader
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.transforms import test_transform, train_transform
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.metrics import summarise
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor
from pipeline.provenance import git_state, hardware, libraries
from pipeline.runtime import make_deterministic, resolve_device, seed_everything, worker_count
from pipeline.training.loop import Log, Progress, save_weights, train
from pipeline.training.optimizer import build_optimizer
from pipeline.training.state import drop_state, run_key
from pipeline.training.step import Trainer

HISTORY_COLUMNS = (
    *("iteration", "epoch", "lr", "loss", "loss_final", "loss_coarse", "loss_auxiliary", "loss_consistency"),
    *("grad_norm", "memory_momentum"),
)


def train_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig, log: Log) -> Path:
    """Train and write the files listed in `_write`; returns their folder. Resumes an interrupted run of the same key.

    log: called with (iteration, values) while training. Raises PipelineError when the data does not suit the benchmark.
    """
    layout = Layout(root)
    device = resolve_device(runtime.device)
    make_deterministic(device)
    seed_everything(seed)
    started = datetime.datetime.now(datetime.UTC)
    prepared = Prepared(layout.prepared(benchmark.dataset.name))
    key = run_key(benchmark, seed, prepared.info["fingerprint"], runtime.precision)
    trainer, loader = _build(benchmark, seed, runtime, prepared, device)

    def validate() -> dict[str, float]:
        return _validate(trainer, prepared, runtime)

    state_dir = layout.state(benchmark.id, key)
    progress = train(trainer, loader, validate, runtime, state_dir, log)
    out = layout.train(benchmark.id, seed)
    _write(out, trainer, progress, state_dir, seed, key, prepared.info["fingerprint"])
    _write_curves(layout.curves(benchmark.id, seed), progress)
    _write_cost(out, root, trainer, progress, started)
    drop_state(state_dir)
    return out


def _build(
    benchmark: Benchmark, seed: int, runtime: RuntimeConfig, prepared: Prepared, device: torch.device
) -> tuple[Trainer, TrainLoader]:
    spec = get_dataset(benchmark.dataset.name)
    loader = TrainLoader(
        prepared.split(benchmark.dataset.train_splits),
        train_transform(benchmark.augmentation, spec.flip_pairs),
        batch_size=benchmark.schedule.batch_size,
        seed=seed,
        workers=worker_count(runtime.workers),
    )
    if loader.iterations_per_epoch == 0:
        raise PipelineError(
            f"params/{benchmark.id}.yaml: schedule.batch_size: {benchmark.schedule.batch_size} is larger than the "
            f"training split of {benchmark.dataset.name}; use a smaller batch"
        )
    model = build_segmentor(benchmark, len(spec.classes)).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "float16")
    total = benchmark.schedule.epochs * loader.iterations_per_epoch
    optimizer = build_optimizer(model, benchmark.optimizer)
    return Trainer(benchmark, model, optimizer, scaler, device, runtime.precision, total), loader


def _validate(trainer: Trainer, prepared: Prepared, runtime: RuntimeConfig) -> dict[str, float]:
    """Single-scale scores on the validation split."""
    benchmark = trainer.benchmark
    table = prepared.split([benchmark.dataset.validation_split])
    samples = eval_loader(table, test_transform(benchmark.inference.resize), worker_count(runtime.workers))
    _, counts = evaluate(
        trainer.model,
        samples,
        {"single_scale": benchmark.inference.single_scale},
        prepared.info["num_classes"],
        trainer.device,
        precision=trainer.precision,
        batch_size=runtime.evaluation_batch,
    )
    summary = summarise(counts["single_scale"].confusion)
    return {"miou": summary.miou, "pixel_accuracy": summary.pixel_accuracy}


def _write(
    out: Path, trainer: Trainer, progress: Progress, state_dir: Path, seed: int, key: str, fingerprint: str
) -> None:
    """The deterministic results: weights (last, best), configuration, memory and summary."""
    benchmark, model = trainer.benchmark, trainer.model
    out.mkdir(parents=True, exist_ok=True)
    save_weights(model, out / "last.safetensors")
    shutil.copyfile(state_dir / "best.safetensors", out / "best.safetensors")
    (out / "config.yaml").write_text(resolved_yaml(benchmark), encoding="utf-8")
    if model.memory is not None and progress.first_epoch_memory is not None:
        final = model.memory.memory.detach().cpu().numpy()
        first = progress.first_epoch_memory.numpy()
        np.savez(out / "memory.npz", first_epoch=first, final=final, touched=(final != 0).any(axis=-1))
    best = max(progress.validation, key=lambda row: row["miou"])
    summary = {
        "benchmark": benchmark.id,
        "seed": seed,
        "config_hash": config_hash(benchmark),
        "run_key": key,
        "dataset": benchmark.dataset.name,
        "data_fingerprint": fingerprint,
        "precision": trainer.precision,
        "epochs": benchmark.schedule.epochs,
        "iterations": progress.iteration,
        "parameters": _parameters(model),
        "best": {"epoch": best["epoch"], "miou": best["miou"]},
        "final": {"loss": progress.history[-1]["loss"], "miou": progress.validation[-1]["miou"]},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _write_curves(out: Path, progress: Progress) -> None:
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(progress.history, columns=HISTORY_COLUMNS).to_csv(out / "history.csv", index=False)
    pd.DataFrame(progress.validation).to_csv(out / "validation.csv", index=False)


def _write_cost(out: Path, root: Path, trainer: Trainer, progress: Progress, started: datetime.datetime) -> None:
    """What depends on the machine and the hour, in a file of its own so that no later result hangs on it."""
    commit, dirty = git_state(root)
    cost: dict[str, Any] = {
        "seconds": progress.seconds,
        "seconds_per_iteration": progress.seconds / max(progress.iteration, 1),
        "peak_memory_bytes": progress.peak_memory,
        "device": str(trainer.device),
        "hardware": hardware(),
        "libraries": libraries(),
        "commit": commit,
        "dirty": dirty,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    (out / "cost.json").write_text(json.dumps(cost, indent=2) + "\n", encoding="utf-8")


def _parameters(model: Segmentor) -> dict[str, int]:
    """Trainable parameters; the memory is a buffer and not among them."""
    total = sum(p.numel() for p in model.parameters())
    encoder = sum(p.numel() for p in model.encoder.parameters())
    return {"total": total, "encoder": encoder, "head": total - encoder}
