"""A small, complete set of result files in the pipeline's formats, without training anything.

Street scenes are drawn, predictions are made by damaging their truth, and every count, score and matrix is computed
from these predictions. With memory a prediction is damaged less, rare classes most noticeably. Benchmarks may be
trained or imported, and may be tested on a split without labels; the street scenes then pass for Cityscapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from helpers.trained_run import write_counted
from pipeline.config import Benchmark, config_hash, resolved_yaml
from pipeline.config.parse import parse
from pipeline.datasets import IGNORE_INDEX, DatasetSpec, get_dataset, scored_split
from pipeline.evaluation.evaluate import ProtocolCounts
from pipeline.layout import Layout
from pipeline.results.metrics import Counts, miou, near_boundaries, summarise
from pipeline.results.record import (
    BOUNDARY,
    PROBES,
    PROTOCOLS,
    Cost,
    EvaluationFiles,
    Memory,
    ProtocolScores,
    TrainingFiles,
    TrainingRecord,
    late_loss,
)
from pipeline.results.reference import Reference
from pipeline.results.run import Run
from pipeline.results.statistics import scores

DATASET = get_dataset("camvid")
K = len(DATASET.classes)
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(K)
MISTAKEN_FOR = (BUILDING, TREE, BUILDING, PAVEMENT, ROAD, BUILDING, BUILDING, BUILDING, ROAD, BUILDING, PEDESTRIAN)
ERROR = np.array([0.03, 0.10, 0.55, 0.03, 0.15, 0.12, 0.60, 0.55, 0.25, 0.50, 0.45])  # share of damaged pixels
FEWER = {"fcn": np.array([1, 1, 0.8, 1, 1, 1, 0.6, 0.8, 0.9, 0.7, 0.7]), "deeplabv3": np.ones(K)}  # with memory
SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) / 100  # mIoU of reference trainings about their mean
COMMIT = "5f0c1a9e" * 5
HARDWARE = {"cpu": "A CPU", "cores": 2, "threads": 1, "gpu": None, "memory_bytes": 8 * 2**30, "platform": "Linux"}
ITERATIONS = 200
URL = "https://example.org/releases/ssseg_memorynet/row.pth"
PANEL = 4
SIZE = (72, 96)

Labels = NDArray[np.uint8]


def write_results(
    root: Path,
    *,
    seeds: tuple[int, ...] = (0, 1),
    images: int = 16,
    benchmarks: Sequence[Benchmark] = (),
) -> None:
    """params.yaml, params/, plan, prepared data and the results of `benchmarks` under `root`.

    benchmarks: by default FCN and DeepLabV3 with and without memory. The prepared data claims to hold the dataset's
    official numbers of images, however many `images` are drawn.
    """
    rng = np.random.default_rng(0)
    scenes = {f"scene_{i:03d}": _scene(rng) for i in range(images)}
    chosen = benchmarks or [benchmark(framework, memory) for framework in FEWER for memory in (False, True)]
    choice = {"benchmarks": [b.id for b in chosen], "seeds": list(seeds)}
    _write_text(root / "params.yaml", yaml.safe_dump(choice))
    for planned in chosen:
        spec = get_dataset(planned.dataset.name)
        split = scored_split(planned.dataset, spec)
        fingerprint = _write_prepared(Layout(root).prepared(spec.name), scenes, spec, split)
        _write_text(
            root / "params" / f"{planned.id}.yaml", yaml.safe_dump(planned.model_dump(mode="json", exclude={"id"}))
        )
        _write_text(Layout(root).resolved(planned.id), resolved_yaml(planned))
        for seed in seeds:
            _write_training(root, planned, seed, fingerprint)
            _write_evaluation(root, planned, seed, scenes, split)


def row(
    benchmark_id: str = "camvid-row",
    dataset: str = "camvid",
    memory: bool = True,
    mode: str = "import",
    paper: tuple[float | None, float | None] = (60.0, 61.0),
    model_zoo: tuple[float | None, float | None] = (60.0, 61.2),
    baseline: str | None = None,
) -> Benchmark:
    """A benchmark with published numbers (single scale, ms+flip), as params/`benchmark_id`.yaml would give it."""
    published = {
        name: dict(zip(("single_scale", "ms_flip"), scores, strict=True))
        for name, scores in (("paper", paper), ("model_zoo", model_zoo))
    }
    plain = benchmark("deeplabv3", memory).model_dump(mode="json")
    changes = {
        "id": benchmark_id,
        "mode": mode,
        "baseline": baseline,
        "dataset": {"name": dataset},
        "published": {**published, "checkpoints": [URL]},
    }
    return parse(Benchmark, plain | changes, "fake")


def benchmark(framework: str, memory: bool) -> Benchmark:
    """camvid-FRAMEWORK or camvid-FRAMEWORK-mcibi."""
    data: dict[str, Any] = {
        "id": f"camvid-{framework}{'-mcibi' if memory else ''}",
        "description": "made up for tests",
        "dataset": {"name": "camvid"},
        "encoder": {"name": "resnet18"},
        "segmentor": {"framework": framework},
        "schedule": {"epochs": 10, "batch_size": 8, "validate_every": 2},
        "augmentation": {"crop": [64, 64]},
    }
    if memory:
        data |= {"baseline": f"camvid-{framework}", "memory": {}}
    return parse(Benchmark, data, "fake")


def other_trainings(benchmark: Benchmark, runs: Sequence[Run], shift: float = 0.0) -> Reference:
    """A reference record of five trainings other than `runs`: within a point of their mean moved by `shift`."""
    one = Reference.of_runs(benchmark, runs[:1])
    mean = {p: float(np.mean([run.scores[p].miou for run in runs])) + shift for p in runs[0].scores}
    trainings = tuple(
        replace(one.trainings[0], seed=seed, scores={p: mean[p] + off for p in mean}, weights="0" * 64)
        for seed, off in enumerate(-SPREAD if benchmark.memory else SPREAD)
    )
    return replace(one, trainings=trainings)


def damage(truth: Labels, framework: str, memory: bool, views: int, key: list[int]) -> Labels:
    """(H, W) prediction: patches of each class are taken for its likeliest mistake. More `views`, fewer patches.

    Half of the patches' variance depends on `key` alone, so that a model with memory resembles the one without.
    """
    error = ERROR * (FEWER[framework] if memory else 1.0) * (0.9 if framework == "deeplabv3" else 1.0) * 0.96**views
    filled = np.where(truth == IGNORE_INDEX, BUILDING, truth)
    shared, own = (np.random.default_rng([*key, part]).standard_normal(truth.shape) for part in (0, 1 + memory))
    smooth = cv2.GaussianBlur((shared + own).astype(np.float32), (0, 0), 3)
    rank = smooth.ravel().argsort().argsort().reshape(truth.shape) / truth.size  # uniform in [0, 1), in patches
    wrong = rank < error[filled]
    return np.where(wrong, np.array(MISTAKEN_FOR)[filled], filled).astype(np.uint8)


def _scene(rng: np.random.Generator) -> Labels:
    """A street: train ids (H, W) uint8, some of them ignored."""
    height, width = SIZE
    scene = np.full(SIZE, SKY, dtype=np.uint8)
    horizon = int(height * rng.uniform(0.45, 0.55))
    for left in range(0, width, width // 6):
        top = int(horizon * rng.uniform(0.1, 0.8))
        scene[top:, left : left + width // 6] = rng.choice([BUILDING, BUILDING, TREE])
    scene[horizon:] = PAVEMENT
    centre = width * rng.uniform(0.4, 0.6)
    corners = [(centre - width * 0.05, horizon), (centre + width * 0.05, horizon), (width * 0.9, height), (0, height)]
    cv2.fillPoly(scene, [np.array(corners, dtype=np.int32)], ROAD)
    if rng.random() < 0.6:
        scene[horizon - height // 10 : horizon, : int(width * rng.uniform(0.2, 0.4))] = FENCE
    for _ in range(2):
        column = int(rng.integers(2, width - 4))
        scene[height // 5 : horizon + 4, column : column + 2] = POLE
        scene[height // 5 : height // 5 + 6, column - 2 : column + 5] = SIGN
    for thing, tall, wide in ((CAR, 0.14, 0.18), (CAR, 0.10, 0.12), (PEDESTRIAN, 0.22, 0.05), (BICYCLIST, 0.2, 0.09)):
        if rng.random() < 0.75:
            bottom = int(height * rng.uniform(0.6, 0.85))
            left = int(width * rng.uniform(0.05, 0.8))
            scene[bottom - int(tall * height) : bottom, left : left + int(wide * width)] = thing
    scene[-height // 24 :] = IGNORE_INDEX
    return scene


def _picture(scene: Labels, rng: np.random.Generator) -> NDArray[np.uint8]:
    colours = np.full((256, 3), 90.0)
    colours[:K] = 0.5 * np.array(DATASET.palette) + 60
    light = np.linspace(1.15, 0.85, len(scene))[:, None, None]
    noisy = colours[scene] * light + rng.normal(0, 9, (*scene.shape, 3))
    return cv2.GaussianBlur(noisy.clip(0, 255).astype(np.uint8), (0, 0), 0.8)


def _write_prepared(folder: Path, scenes: dict[str, Labels], spec: DatasetSpec, split: str) -> str:
    classes = len(spec.classes)
    rng = np.random.default_rng(1)
    rows = []
    for image_id, scene in scenes.items():
        image, label = (f"{kind}/{split}/{image_id}.png" for kind in ("images", "labels"))
        for path in (image, label):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / image), _picture(scene, rng)[..., ::-1])
        cv2.imwrite(str(folder / label), scene)
        counts = np.bincount(scene.ravel(), minlength=256)
        histogram = [int(n) for n in (*counts[:classes], counts[IGNORE_INDEX])]
        rows.append([image_id, split, image, label, *scene.shape, histogram])
    columns = ["id", "split", "image", "label", "height", "width", "histogram"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_parquet(folder / "table.parquet")
    fingerprint = hashlib.sha256(b"".join(scene.tobytes() for scene in scenes.values())).hexdigest()
    ignored = float(np.mean([scene == IGNORE_INDEX for scene in scenes.values()]))
    info = {"name": spec.name, "num_classes": classes, "classes": list(spec.classes), "fingerprint": fingerprint}
    info |= {"splits": dict(spec.splits), "ignore_share": {split: ignored}}
    _write_text(folder / "dataset.json", json.dumps(info))
    return fingerprint


def _write_training(root: Path, planned: Benchmark, seed: int, fingerprint: str) -> None:
    rng = np.random.default_rng([seed, *planned.id.encode()])
    imported = planned.mode == "import"
    history, validation = ([], []) if imported else _curves(planned, rng)
    parameters = 12_345_678 + 2_000_000 * (planned.memory is not None)
    file = {"url": URL, "file": "row.pth", "bytes": 1234, "sha256": "ab" * 32, "generation": "paper"}
    best = max(validation, key=lambda point: point["miou"], default=None)
    record = TrainingRecord(
        **_identity(planned, seed),
        mode=planned.mode,
        dataset=planned.dataset.name,
        data_fingerprint=fingerprint,
        precision="float32",
        epochs=0 if imported else 10,
        iterations=0 if imported else ITERATIONS,
        parameters={"total": parameters, "encoder": 11_000_000, "head": parameters - 11_000_000},
        flops=3_000_000_000 + 500_000_000 * (planned.memory is not None),
        weights=None,
        checkpoint=file if imported else None,
        best=best and {key: best[key] for key in ("epoch", "miou")},
        final=validation[-1] if validation else None,
        training_loss=None if imported else late_loss(history),
        untouched_memory=[],
    )
    seconds = 2.0 if imported else 240.0 + 60 * (planned.memory is not None) + seed
    libraries = {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.0.0"}
    times = {"started": "2025-01-02T03:04:05+00:00", "finished": "2025-01-02T03:09:05+00:00"}
    per_iteration = None if imported else seconds / ITERATIONS
    cost = Cost(seconds, per_iteration, 3 * 2**29, "cpu", HARDWARE, libraries, COMMIT, dirty=False, **times)
    memory = _memory(planned, rng) if planned.memory is not None else None
    files = TrainingFiles(Layout(root), planned.id, seed)
    files.write(planned, record, cost, memory, history, validation)
    files.weights("last").write_bytes(f"{planned.id} {seed}".encode())


def _curves(planned: Benchmark, rng: np.random.Generator) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Rows of history.csv and validation.csv."""
    steps = np.arange(0, ITERATIONS, 2)
    rate = planned.optimizer.lr * (0.99 * (1 - steps / ITERATIONS) ** 0.9 + 0.01)
    loss = 2.2 * np.exp(-steps / 60) + 0.4 + rng.normal(0, 0.08, len(steps))
    history = {"iteration": steps, "epoch": 1 + steps // 20, "lr": rate, "loss": loss, "loss_final": 0.7 * loss}
    history |= {"loss_coarse": 0.3 * loss, "grad_norm": loss}
    if planned.memory is not None:
        history["memory_momentum"] = 90 * rate
    epochs = np.arange(2, 11, 2)
    miou = 0.6 - 0.4 * np.exp(-epochs / 3) + rng.normal(0, 0.01, len(epochs))
    validation = {"epoch": epochs, "iteration": epochs * 20, "miou": miou, "pixel_accuracy": 0.3 + miou}
    return pd.DataFrame(history).to_dict("records"), pd.DataFrame(validation).to_dict("records")


def _memory(planned: Benchmark, rng: np.random.Generator) -> Memory:
    classes = len(get_dataset(planned.dataset.name).classes)
    shared = rng.random((1, 1, 32))
    first = (shared + 0.4 * rng.random((classes, 1, 32))).astype(np.float32)
    last = (0.3 * shared + rng.random((classes, 1, 32))).astype(np.float32)
    first[BICYCLIST] = 0  # not seen in the first epoch
    return Memory(None if planned.mode == "import" else first, last, (last != 0).any(axis=-1))


def _write_evaluation(root: Path, planned: Benchmark, seed: int, scenes: dict[str, Labels], split: str) -> None:
    files, spec = EvaluationFiles(Layout(root), planned.id, seed), get_dataset(planned.dataset.name)
    (files.details / "predictions").mkdir(parents=True)
    ids = list(scenes)
    panel = [ids[i] for i in np.linspace(0, len(ids) - 1, PANEL).round().astype(int)]
    submission = None
    if split != planned.dataset.evaluation_split:
        archives = {name: f"details/submission_{name}.zip" for name in PROTOCOLS}
        submission = {"split": planned.dataset.evaluation_split, "images": 1525, "files": archives}
        for name in archives.values():
            (files.folder / name).touch()
    measured, counts, confusion = {}, {}, {}
    key = 0 if planned.mode == "import" else seed  # every seed evaluates the same published checkpoint
    framework, memory = planned.segmentor.framework, planned.memory is not None

    def of_views(views: int, keep: bool = False) -> ProtocolCounts:
        """Counts of a prediction from so many views. keep: also the label maps of the panel."""
        classes = len(spec.classes)
        found = ProtocolCounts(np.zeros((classes, classes), np.int64))
        for index, (image_id, scene) in enumerate(scenes.items()):
            prediction = damage(scene, framework, memory, views, [key, index, max(views, 1)])
            found.add(prediction, scene, near_boundaries(scene, scene == IGNORE_INDEX, classes))
            if keep and image_id in panel:
                cv2.imwrite(str(files.prediction(image_id)), prediction)
        return found

    for protocol, views in zip(PROTOCOLS, (1, 4), strict=True):
        found = of_views(views, keep=protocol == "ms_flip")
        confusion[protocol] = found.confusion
        counts |= {protocol: found.per_image(), BOUNDARY[protocol]: found.per_boundary()}
        summary = summarise(confusion[protocol])
        estimate = scores(Counts.of_seeds([counts[protocol]]), np.arange(len(ids)), samples=50).mean()
        accuracies = (summary.pixel_accuracy, summary.mean_accuracy)
        boundary = float(miou(*counts[BOUNDARY[protocol]].total()))
        measured[protocol] = ProtocolScores(summary.miou, estimate.low, estimate.high, *accuracies, boundary)
    about = {"run_key": _identity(planned, seed)["run_key"], "split": split, "submission": submission, "panel": panel}
    # Of the memory, all that matters to these predictions is that a pixel reads its own class.
    probes = dict.fromkeys(PROBES, counts["single_scale"]) | {"shuffled": of_views(-9).per_image()} if memory else {}
    write_counted(root, planned, seed, ids, counts, confusion, probes, scores=measured, **about)


def _identity(planned: Benchmark, seed: int) -> dict[str, Any]:
    key = hashlib.sha256(f"{config_hash(planned)} {seed}".encode()).hexdigest()[:12]
    return {"benchmark": planned.id, "seed": seed, "config_hash": config_hash(planned), "run_key": key}


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
