"""Train one benchmark with one seed, from the files of the plan and the prepared data to the files of `runs/train`."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import numpy as np
import torch

from pipeline.checkpoints.download import WeightFile
from pipeline.checkpoints.starting import starting_weights
from pipeline.config import Benchmark
from pipeline.config.compilable import compile_problem
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.datasets.loader import Share, TrainLoader, eval_loader
from pipeline.datasets.prepared import Prepared, drawn
from pipeline.datasets.transforms import test_transform, train_transform
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import evaluate, gather_results
from pipeline.files.storage import new_file, read_json
from pipeline.layout import Layout
from pipeline.models import build_segmentor
from pipeline.results.metrics import summarise
from pipeline.runtime.device import make_deterministic, resolve_device, seed_everything, worker_count
from pipeline.runtime.distributed import arithmetic, from_main, ranks, with_synchronised_norm, wrap
from pipeline.runtime.provenance import loaded_code
from pipeline.training.loop import Log, Progress, save_weights, train
from pipeline.training.optimizer import build_optimizer
from pipeline.training.results import write_cost, write_curves, write_summary
from pipeline.training.state import drop_state, run_key
from pipeline.training.step import Trainer, compiled


def train_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig, log: Log) -> Path:
    """Train and write the files of `runs/train`; returns their folder. Resumes an interrupted run of the same key.

    log: called with (iteration, values) while training. Every rank runs this; the main one alone logs and writes.
    Raises PipelineError when the data does not suit the benchmark, the devices cannot share its batch, or
    `runtime.compile` cannot be had.
    """
    if problem := compile_problem(benchmark, runtime):
        raise PipelineError(problem)
    layout = Layout(root)
    loaded_code(root)  # before the work: cost.json is to name the commit that was loaded
    device = resolve_device(runtime.device)
    make_deterministic(device)
    seed_everything(seed)
    started = datetime.datetime.now(datetime.UTC)
    prepared = Prepared(layout.prepared(benchmark.dataset.name))
    weights = starting_weights(layout, benchmark)
    key = _key(benchmark, seed, runtime, prepared, weights)
    weights_path = weights and layout.home / weights.path
    trainer, loader = _build(benchmark, seed, runtime, prepared, device, weights_path)

    def validate() -> dict[str, float]:
        return _validate(trainer, prepared, runtime)

    state_dir = layout.state(benchmark.id, key)
    progress = train(trainer, loader, validate, runtime, state_dir, log)
    out = layout.train(benchmark.id, seed)
    if not ranks().is_main:
        return out
    digest = weights and weights.sha256
    _write(out, trainer, progress, state_dir, seed, key, prepared.info["fingerprint"], arithmetic(runtime), digest)
    write_curves(layout.curves(benchmark.id, seed), progress.history, progress.validation)
    per_iteration = progress.seconds / max(progress.iteration, 1)
    write_cost(out, root, device, started, progress.seconds, per_iteration, progress.peak_memory)
    drop_state(state_dir)
    return out


def is_trained(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> bool:
    """Whether `runs/train` holds what training now would make, complete: the same run key, nothing left to resume."""
    layout = Layout(root)
    summary = layout.train(benchmark.id, seed) / "summary.json"
    if not summary.is_file():
        return False
    prepared = Prepared(layout.prepared(benchmark.dataset.name))
    key = _key(benchmark, seed, runtime, prepared, starting_weights(layout, benchmark))
    found = read_json(summary, "delete its folder to train again")["run_key"]
    return found == key and not layout.state(benchmark.id, key).exists()  # the state goes when all files are there


def _key(
    benchmark: Benchmark, seed: int, runtime: RuntimeConfig, prepared: Prepared, weights: WeightFile | None
) -> str:
    return run_key(benchmark, seed, prepared.info["fingerprint"], arithmetic(runtime), weights and weights.sha256)


def _build(
    benchmark: Benchmark,
    seed: int,
    runtime: RuntimeConfig,
    prepared: Prepared,
    device: torch.device,
    weights: Path | None,
) -> tuple[Trainer, TrainLoader]:
    """weights: the file that `encoder.weights: imagenet:NAME` stands for."""
    spec = get_dataset(benchmark.dataset.name)
    loader = TrainLoader(
        drawn(prepared.split(benchmark.dataset.train_splits), benchmark.dataset.train_fraction, seed),
        train_transform(benchmark.augmentation, spec.flip_pairs),
        batch_size=benchmark.schedule.batch_size,
        seed=seed,
        workers=worker_count(runtime.workers),
        share=Share(ranks().rank, ranks().world, runtime.accumulate),
    )
    if loader.iterations_per_epoch == 0:
        raise PipelineError(
            f"params/{benchmark.id}.yaml: schedule.batch_size: {benchmark.schedule.batch_size} is larger than the "
            f"training split of {benchmark.dataset.name}; use a smaller batch"
        )
    initial = benchmark if weights is None else with_encoder_weights(benchmark, weights)
    # Channels last is the layout that convolution libraries work in, on the CPU and on the GPU.
    model = build_segmentor(initial, len(spec.classes)).to(device, memory_format=torch.channels_last)
    model = with_synchronised_norm(model, device)
    if ranks().rank > 0:
        seed_everything(seed + ranks().rank)  # equal weights so far, different dropout from here on
    scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "float16")
    total = benchmark.schedule.epochs * loader.iterations_per_epoch
    optimizer = build_optimizer(model, benchmark.optimizer)
    parallel = compiled(model) if runtime.compile else wrap(model, device)
    return Trainer(benchmark, model, parallel, optimizer, scaler, device, runtime.precision, total), loader


def _validate(trainer: Trainer, prepared: Prepared, runtime: RuntimeConfig) -> dict[str, float]:
    """Single-scale scores on the validation split, of which every rank takes its share; the same for all ranks."""
    benchmark = trainer.benchmark
    table = prepared.split([benchmark.dataset.validation_split])
    own = table.iloc[ranks().rank :: ranks().world]
    samples = eval_loader(own, test_transform(benchmark.inference.resize), worker_count(runtime.workers))
    evaluated = evaluate(
        trainer.model,
        samples,
        {"single_scale": benchmark.inference.single_scale},
        prepared.info["num_classes"],
        trainer.device,
        precision=trainer.precision,
        batch_size=runtime.evaluation_batch,
    )
    merged = gather_results(evaluated, list(table["id"]))
    summary = from_main(summarise(merged[1]["single_scale"].confusion) if merged else None)
    return {"miou": summary.miou, "pixel_accuracy": summary.pixel_accuracy}


def with_encoder_weights(benchmark: Benchmark, path: Path) -> Benchmark:
    """`benchmark` with a file in place of `encoder.weights: imagenet:NAME`."""
    encoder = benchmark.encoder.model_copy(update={"weights": f"file:{path}"})
    return benchmark.model_copy(update={"encoder": encoder})


def _write(
    out: Path,
    trainer: Trainer,
    progress: Progress,
    state_dir: Path,
    seed: int,
    key: str,
    fingerprint: str,
    precision: str,
    weights: str | None,
) -> None:
    """The deterministic results: weights (last, best), configuration, memory and summary."""
    model = trainer.model
    out.mkdir(parents=True, exist_ok=True)
    save_weights(model, out / "last.safetensors")
    shutil.copyfile(state_dir / "best.safetensors", out / "best.safetensors")
    if model.memory is not None and progress.first_epoch_memory is not None:
        final = model.memory.memory.detach().cpu().numpy()
        first = progress.first_epoch_memory.numpy()
        with new_file(out / "memory.npz") as stream:
            np.savez(stream, first_epoch=first, final=final, touched=(final != 0).any(axis=-1))
    best = max(progress.validation, key=lambda row: row["miou"])
    write_summary(
        out,
        trainer.benchmark,
        model,
        seed=seed,
        run_key=key,
        data_fingerprint=fingerprint,
        precision=precision,
        epochs=trainer.benchmark.schedule.epochs,
        iterations=progress.iteration,
        weights=weights,
        checkpoint=None,
        best={"epoch": best["epoch"], "miou": best["miou"]},
        final={"loss": progress.history[-1]["loss"], "miou": progress.validation[-1]["miou"]},
    )
