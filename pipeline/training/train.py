"""Train one benchmark with one seed, from the files of the plan and the prepared data to the files of `runs/train`."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import torch

from pipeline.config import Benchmark
from pipeline.config.limits import compile_problem, share_problem
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import get_dataset
from pipeline.datasets.loader import Share, TrainLoader
from pipeline.datasets.prepared import Prepared, class_pixels, subsample
from pipeline.datasets.transforms import TrainTransform
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import by_protocol, evaluate_split
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor, start_from
from pipeline.results.metrics import summarise
from pipeline.results.record import TrainingFiles
from pipeline.runtime.device import resolve_device, seed_everything, set_kernels, worker_count
from pipeline.runtime.distributed import from_main, ranks, with_synchronised_norm, wrap
from pipeline.runtime.provenance import loaded_code
from pipeline.training.loop import Log, save_weights, train
from pipeline.training.losses import median_frequency
from pipeline.training.optimizer import build_optimizer
from pipeline.training.outcome import cost_now, memory_record, training_record
from pipeline.training.state import drop_state, has_state, identify
from pipeline.training.step import Trainer, compiled


def train_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig, log: Log) -> Path:
    """Train and write the files of `runs/train`; returns their folder. Resumes an interrupted run of the same key.

    log: called with (iteration, values) while training. Every rank runs this; the main one alone logs and writes.
    Raises PipelineError when the data does not suit the benchmark, the devices cannot share its batch, or
    `runtime.compile` is impossible.
    """
    here = runtime.model_copy(update={"devices": ranks().world, "nodes": 1})  # whoever started them
    if problem := compile_problem(benchmark, here) or share_problem(benchmark, here):
        raise PipelineError(problem)
    layout = Layout(root)
    loaded_code(root)  # before the work: cost.json is to name the commit that was loaded
    device = resolve_device(runtime.device)
    set_kernels(device, runtime.precision)
    seed_everything(seed)
    started = datetime.datetime.now(datetime.UTC)
    prepared = Prepared(layout.prepared(benchmark.dataset.name))
    identity = identify(layout, benchmark, seed, runtime)
    state_dir = layout.state(benchmark.id, identity.run_key)
    files = TrainingFiles(layout, benchmark.id, seed)
    trainer, loader = _build(benchmark, seed, runtime, prepared, device, identity.weights)
    progress = train(trainer, loader, lambda: _validate(trainer, prepared, runtime), runtime, state_dir, log)
    if ranks().is_main:
        save_weights(trainer.model, files.weights("last"))
        shutil.copyfile(state_dir / "best.safetensors", files.weights("best"))
        record = training_record(benchmark, trainer.model, seed, identity, prepared.info["classes"], progress)
        cost, memory = cost_now(root, device, started, progress), memory_record(trainer.model, progress)
        files.write(benchmark, record, cost, memory, progress.history, progress.validation)
        drop_state(state_dir)
    return files.folder


def is_trained(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> bool:
    """Whether `runs/train` holds what training now would make, complete: the same run key, nothing left to resume."""
    files = TrainingFiles(Layout(root), benchmark.id, seed)
    if not files.is_complete or not all(files.weights(name).is_file() for name in ("last", "best")):
        return False
    key = identify(files.layout, benchmark, seed, runtime).run_key
    # The state is removed once all files are written.
    return files.record.run_key == key and not has_state(files.layout.state(benchmark.id, key))


def _build(
    benchmark: Benchmark,
    seed: int,
    runtime: RuntimeConfig,
    prepared: Prepared,
    device: torch.device,
    weights: Path | None,
) -> tuple[Trainer, TrainLoader]:
    """weights: see `_network`. Raises PipelineError for data that the benchmark cannot be trained on."""
    spec = get_dataset(benchmark.dataset.name)
    table = subsample(prepared.split(benchmark.dataset.train_splits), benchmark.dataset.train_fraction, seed)
    loader = TrainLoader(
        table,
        TrainTransform(benchmark.augmentation, spec.flip_pairs),
        batch_size=benchmark.schedule.batch_size,
        seed=seed,
        workers=worker_count(runtime.workers),
        share=Share(ranks().rank, ranks().world, runtime.accumulate),
    )
    _require_iterations(benchmark, loader.iterations_per_epoch)
    counts = class_pixels(spec, table, "training")
    class_pixels(spec, prepared.split([benchmark.dataset.validation_split]), "validation")
    absent = [name for name, pixels in zip(spec.classes, counts.sum(axis=0), strict=True) if not pixels]
    if absent and ranks().is_main:
        print(f"{spec.name}: no training image has {', '.join(absent)}")
    model = _network(benchmark, len(spec.classes), weights, device)
    if ranks().rank > 0:
        seed_everything(seed + ranks().rank)  # equal weights so far, different dropout from here on
    class_weights = None
    if benchmark.loss.class_weights == "median_frequency":
        class_weights = median_frequency(counts).to(device)
    trainer = Trainer(
        benchmark,
        model,
        compiled(model) if runtime.compile else wrap(model, device),
        build_optimizer(model, benchmark.optimizer),
        torch.amp.GradScaler(device.type, enabled=runtime.precision == "float16"),
        device,
        runtime.precision,
        benchmark.schedule.epochs * loader.iterations_per_epoch,
        class_weights,
    )
    return trainer, loader


def _require_iterations(benchmark: Benchmark, iterations_per_epoch: int) -> None:
    """Raise PipelineError for less than one batch, or a training that ends before its warm-up."""
    total = benchmark.schedule.epochs * iterations_per_epoch
    if iterations_per_epoch == 0:
        raise PipelineError(
            f"params/{benchmark.id}.yaml: schedule.batch_size: {benchmark.schedule.batch_size} is larger than the "
            f"training split of {benchmark.dataset.name}; use a smaller batch"
        )
    if total <= benchmark.schedule.warmup_iterations:
        raise PipelineError(
            f"params/{benchmark.id}.yaml: schedule.warmup_iterations: {benchmark.schedule.warmup_iterations}, but the "
            f"whole training has {total} iterations; use fewer, or more epochs"
        )


def _network(benchmark: Benchmark, classes: int, weights: Path | None, device: torch.device) -> Segmentor:
    """The network before the first step.

    weights: the file in place of `encoder.weights: imagenet:NAME`, or of a trained network if there is a `start`.
    """
    initial = benchmark
    if weights is not None and benchmark.start is None:
        encoder = benchmark.encoder.model_copy(update={"weights": f"file:{weights}"})
        initial = benchmark.model_copy(update={"encoder": encoder})
    model = build_segmentor(initial, classes)
    if benchmark.start is not None:
        fresh = start_from(model, weights)
        if ranks().is_main:
            print(f"{benchmark.id}: starts from {benchmark.start.benchmark}; new parts: {', '.join(fresh) or 'none'}")
    # Channels last is the layout that convolution libraries work in, on the CPU and on the GPU.
    return with_synchronised_norm(model.to(device, memory_format=torch.channels_last), device)


def _validate(trainer: Trainer, prepared: Prepared, runtime: RuntimeConfig) -> dict[str, float]:
    """Single-scale scores on the validation split, of which every rank takes its share; the same for all ranks."""
    inference, spec = trainer.benchmark.inference, get_dataset(trainer.benchmark.dataset.name)
    table = prepared.split([trainer.benchmark.dataset.validation_split])
    classify = by_protocol(trainer.model, {"single_scale": inference.single_scale}, spec.flip_pairs)
    resize = inference.resized(inference.single_scale)
    merged = evaluate_split(trainer.model, table, resize, classify, len(spec.classes), trainer.device, runtime)
    summary = from_main(summarise(merged[1]["single_scale"].confusion) if merged else None)
    return {"miou": summary.miou, "pixel_accuracy": summary.pixel_accuracy}
