"""Evaluate one trained benchmark under both protocols in one pass and write the files of `runs/evaluate`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipeline.config import Benchmark
from pipeline.config.schema import RuntimeConfig
from pipeline.datasets import DatasetSpec, get_dataset, scored_split
from pipeline.datasets.loader import eval_loader
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.transforms import test_transform
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import Evaluated, OnPrediction, Prediction, ProtocolCounts, evaluate, gather_results
from pipeline.evaluation.folding import fold_batch_norm
from pipeline.evaluation.submission import Submission, joined
from pipeline.files.storage import new_file, read_json, write_json, write_png
from pipeline.layout import Layout
from pipeline.models import Segmentor, build_segmentor
from pipeline.results.bootstrap import bootstrap_miou, interval
from pipeline.results.metrics import summarise
from pipeline.runtime.device import make_deterministic, resolve_device, worker_count
from pipeline.runtime.distributed import gather_on_main, ranks

PANEL_IMAGES = 8  # label maps kept for the report's pictures


def evaluate_benchmark(root: Path, benchmark: Benchmark, seed: int, runtime: RuntimeConfig) -> Path:
    """Single-scale and ms+flip scores of the checkpoint that `inference.checkpoint` names; returns their folder.

    When the labels of the evaluation split are not public, archives for their server are written beside the scores,
    which are then those of the validation split. Every rank runs this on its share of the images; the main one alone
    writes the scores.
    """
    layout, device = Layout(root), resolve_device(runtime.device)
    make_deterministic(device)
    spec, prepared = get_dataset(benchmark.dataset.name), Prepared(layout.prepared(benchmark.dataset.name))
    split = scored_split(benchmark.dataset, spec)
    table = prepared.split([split])
    if table.empty:
        raise PipelineError(f"{spec.name}: the prepared split {split} has no images to score {benchmark.id} on")
    train_dir, out = layout.train(benchmark.id, seed), layout.evaluate(benchmark.id, seed)
    model = load_model(benchmark, len(spec.classes), train_dir / f"{benchmark.inference.checkpoint}.safetensors")
    model = fold_batch_norm(model.to(device))
    protocols = {"single_scale": benchmark.inference.single_scale, "ms_flip": benchmark.inference.ms_flip}
    panel = panel_ids(list(table["id"]))
    predictions = out / "details" / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)

    def keep(image_id: str, maps: dict[str, Prediction]) -> None:
        if image_id in panel:
            write_png(predictions / f"{image_id.replace('/', '__')}.png", maps["ms_flip"])

    def predict(images: pd.DataFrame, name: str, on_prediction: OnPrediction) -> Evaluated | None:
        own = images.iloc[ranks().rank :: ranks().world]
        evaluated = evaluate(
            model,
            eval_loader(own, test_transform(benchmark.inference.resize), worker_count(runtime.workers)),
            protocols,
            len(spec.classes),
            device,
            precision=runtime.precision,
            batch_size=runtime.evaluation_batch,
            flip_pairs=spec.flip_pairs,
            on_prediction=on_prediction,
            progress=f"{benchmark.id} seed {seed} {name}",
            total=len(own),
        )
        return gather_results(evaluated, list(images["id"]))

    started = time.perf_counter()
    scored = predict(table, split, keep)
    hidden = prepared.split([benchmark.dataset.evaluation_split])
    submission = None
    if split != benchmark.dataset.evaluation_split and not hidden.empty:  # a declared part may lack the test images
        with Submission(out / "details", list(protocols), _server_ids(spec), ranks().rank) as archives:
            predict(hidden, benchmark.dataset.evaluation_split, archives.add)
        gather_on_main(None)  # every rank's archives are complete
        submission = {"split": benchmark.dataset.evaluation_split, "images": len(hidden)}
    if scored is None:
        return out
    if submission is not None:
        files = {name: joined(out / "details", name, ranks().world) for name in protocols}
        submission["files"] = {name: path.relative_to(out).as_posix() for name, path in files.items()}
    ids, counts = scored
    seconds = time.perf_counter() - started
    about = {"images": len(ids), "split": split, "submission": submission}
    _write(out, about, spec.classes, ids, counts)
    training = read_json(train_dir / "summary.json", "run `dvc repro`")
    write_json(
        out / "details" / "evaluation.json",
        {
            **{key: training[key] for key in ("benchmark", "seed", "config_hash", "run_key", "dataset")},
            **about,
            "checkpoint": benchmark.inference.checkpoint,
            "panel": panel,
            "protocol": benchmark.inference.model_dump(mode="json"),
        },
    )
    images = len(ids) + (submission["images"] if submission else 0)
    write_json(out / "cost.json", {"seconds": seconds, "seconds_per_image": seconds / images, "device": str(device)})
    return out


def _server_ids(spec: DatasetSpec) -> tuple[int, ...]:
    if spec.submission_ids is None:
        raise PipelineError(
            f"pipeline/datasets/sources/{spec.name}.py: submission_ids: missing, so predictions of {spec.name}'s "
            "unlabelled split cannot be written for its server"
        )
    return spec.submission_ids


def load_model(benchmark: Benchmark, num_classes: int, weights: Path) -> Segmentor:
    """The benchmark's segmentor with the weights of a safetensors file, strictly, in evaluation mode, on the CPU."""
    model = build_segmentor(benchmark, num_classes, pretrained=False)
    try:
        model.load_state_dict(load_file(weights))
    except SafetensorError as error:
        raise PipelineError(f"{weights}: damaged ({error}); delete it and run `dvc repro` to make it anew") from error
    except RuntimeError as error:
        raise PipelineError(f"{weights}: not the weights of {benchmark.id} as configured: {error}") from error
    return model.eval()


def panel_ids(ids: list[str]) -> list[str]:
    """Ids spread evenly over the split: the same for every benchmark, chosen without looking at any result."""
    positions = np.linspace(0, len(ids) - 1, min(PANEL_IMAGES, len(ids))).round().astype(int)
    return [ids[i] for i in positions]


def _write(
    out: Path, about: dict[str, Any], classes: tuple[str, ...], ids: list[str], counts: Mapping[str, ProtocolCounts]
) -> None:
    details = out / "details"
    metrics: dict[str, Any] = {}
    per_image: dict[str, Any] = {"ids": np.array(ids)}
    per_class = pd.DataFrame({"class": classes})
    for name, protocol_counts in counts.items():
        images = protocol_counts.per_image()
        low, high = interval(bootstrap_miou(**images))
        summary = summarise(protocol_counts.confusion)
        metrics[name] = {
            "miou": summary.miou,
            "miou_low": low,
            "miou_high": high,
            "pixel_accuracy": summary.pixel_accuracy,
            "mean_accuracy": summary.mean_accuracy,
        }
        per_class[f"{name}_iou"] = summary.class_iou
        per_image |= {f"{name}/{part}": array for part, array in images.items()}
    truth = next(iter(counts.values())).confusion.sum(axis=1)
    per_class["gt_share"] = truth / truth.sum()
    with new_file(details / "per_class.csv") as stream:
        per_class.to_csv(stream, index=False)
    with new_file(details / "confusion.npz") as stream:
        np.savez(stream, **{name: c.confusion for name, c in counts.items()})
    with new_file(details / "per_image.npz") as stream:
        np.savez_compressed(stream, **per_image)
    write_json(out / "metrics.json", metrics | about)
