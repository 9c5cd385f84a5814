"""Chapters about where the numbers come from, and how far they reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.config.overlay import dotted
from pipeline.reporting.chapters.compared import rows_run, seed_counts
from pipeline.reporting.page import Section, Table, section
from pipeline.reporting.study import Study, Variant
from pipeline.reporting.words import NONE, duration, listing, machine_in_words, memory_size, percent, plain
from pipeline.results.run import Run
from pipeline.results.statistics import RESAMPLES

FEW_IMAGES = 300


def provenance(study: Study) -> Section:
    """What was run: warnings first, then configuration, runs, data, machines and libraries, and how to repeat it."""
    runs = study.runs
    seconds = sum(run.training_seconds + run.evaluation_seconds for run in runs)
    libraries = {name: sorted({run.libraries.get(name, "absent") for run in runs}) for name in _library_names(runs)}
    states = {(run.commit, run.dirty) for run in runs}
    commit, dirty = next(iter(states)) if len(states) == 1 else (None, True)
    commands = sorted({run.command for run in runs if run.command}) or ["dvc repro"]
    return section(
        "runs",
        "provenance",
        study=study,
        time=duration(seconds),
        warnings=warnings(study),
        places=Table("Where the results come from", _places(runs)),
        configuration=Table("What was trained (crop is height × width)", [_configuration(v) for v in study.ran]),
        checkpoints=Table("Imported checkpoints", [_checkpoint(v) for v in study.ran if v.imported]),
        data=Table("Data", _data(study)),
        libraries=[f"{plain(name)} {' or '.join(map(plain, found))}" for name, found in libraries.items()],
        commands=commands if dirty or not commit or study.is_recorded else [f"git checkout {commit}", *commands],
    )


def reading(study: Study) -> Section:
    """What the numbers mean, then the limitations of this very study."""
    framed = [variant for variant in study.ran if variant.spec.frames_per_block > 1]
    few = {f"{v.spec.name} ({len(v.ids)} images)" for v in study.ran if len(v.ids) < FEW_IMAGES}
    counts = seed_counts(study)
    return section(
        "reading",
        "reading",
        study=study,
        resamples=RESAMPLES,
        several=max(counts) > 1,
        pooled=any(comparison.pooled for comparison in study.comparisons),
        seeds=counts,
        frames={(len(v.ids), int(v.blocks.max()) + 1, v.spec.frames_per_block) for v in framed},
        all_framed=len(framed) == len(study.ran),
        fits=any(run.training_loss is not None for run in study.runs),
        last=all(variant.benchmark.inference.checkpoint == "last" for variant in study.trained),
        optimistic=[
            v
            for v in study.trained
            if v.benchmark.inference.checkpoint == "best" and v.split == v.benchmark.dataset.validation_split
        ],
        seen=[variant for variant in study.ran if variant.split in variant.benchmark.dataset.train_splits],
        parts=sorted({variant.spec.name for variant in study.ran if variant.is_part}),
        few=sorted(few),
        rows_run=rows_run(study),
        ablation=ablated(study.ablation),
    )


def warnings(study: Study) -> list[str]:
    """Differences between runs, and gaps in what is known of their origin; usually empty."""
    runs = study.runs
    commits = sorted({run.commit[:10] for run in runs if run.commit})
    dirty, unknown = ([run for run in runs if test(run)] for test in (lambda r: r.dirty, lambda r: not r.commit))
    machines = sorted({machine_in_words(run.hardware) for run in runs})
    precisions = sorted({run.precision for run in runs})
    found = []
    if len(commits) > 1:
        found.append(f"**Runs come from different commits**: {listing([f'`{commit}`' for commit in commits])}.")
    if dirty:
        found.append(f"**Uncommitted changes** were present when these runs were made: {_named(dirty)}.")
    if unknown:
        found.append(f"**No commit is known** for {_named(unknown)}.")
    if len(machines) > 1:
        found.append(f"**Runs were made on different hardware**: {'; '.join(machines)}. Times do not compare.")
    if len({tuple(sorted(run.libraries.items())) for run in runs}) > 1:
        found.append("**Library versions differ between runs**, see the list of libraries.")
    if len(precisions) > 1:
        found.append(f"**Precision differs between runs**: {listing(precisions)}.")
    if changes := ablated(study.ablation):
        found.append(f"**An ablation changes the benchmarks** ({listing(changes)}): they are not the published ones.")
    if study.missing:
        names = listing([f"`{name}` seed {seed}" for name, seed in study.missing])
        found.append(f"Not run: {names}.")
    if study.foreign:
        names = listing([f"`{name}`" for name in study.foreign])
        found.append(f"Left out, because another configuration made them: {names}.")
    return found


def commit_of(run: Run) -> str:
    """The commit in short, and whether files differed from it."""
    return f"`{run.commit[:10]}`{' with changes' if run.dirty else ''}" if run.commit else NONE


def ablated(ablation: Mapping[str, Any]) -> list[str]:
    """Keys of params.yaml's ablation that are set, as `memory.strategy: mean`."""
    return [f"`{key}: {value}`" for key, value in dotted(ablation).items() if value not in (None, {})]


def _named(runs: list[Run]) -> str:
    return listing([f"`{run.name}` seed {run.seed}" for run in runs])


def _library_names(runs: list[Run]) -> list[str]:
    return sorted({name for run in runs for name in run.libraries}, key=str.lower)


def _places(runs: list[Run]) -> list[dict[str, str]]:
    counted = Counter(
        (
            commit_of(run),
            machine_in_words(run.hardware),
            memory_size(run.hardware.get("memory_bytes")),
            plain(run.hardware.get("platform") or NONE),
            run.libraries.get("torch", NONE),
            run.precision,
        )
        for run in runs
    )
    names = ("Commit", "Hardware", "Memory", "System", "torch", "Precision")
    return [dict(zip(names, place, strict=True)) | {"Runs": str(number)} for place, number in sorted(counted.items())]


def _configuration(variant: Variant) -> dict[str, str]:
    b = variant.benchmark
    row = {"Variant": f"`{variant.name}`", "Encoder": plain(b.encoder.name)}
    if variant.imported:
        absent = dict.fromkeys(("Epochs", "Batch", "Crop", "Optimizer", "Rate"), NONE)
        return (
            row | {"Weights": "published checkpoint"} | absent | {"Trained on": "not trained here", "Checkpoint": NONE}
        )
    return row | {
        "Weights": plain(b.encoder.weights or "random"),
        "Epochs": str(b.schedule.epochs),
        "Batch": str(b.schedule.batch_size),
        "Crop": f"{b.augmentation.crop[0]}×{b.augmentation.crop[1]}",
        "Optimizer": b.optimizer.name,
        "Rate": f"{b.optimizer.lr:g}",
        "Trained on": f"{b.dataset.name} {' + '.join(b.dataset.train_splits)}",
        "Checkpoint": "last epoch" if b.inference.checkpoint == "last" else f"best on {b.dataset.validation_split}",
    }


def _checkpoint(variant: Variant) -> dict[str, str]:
    """The published file that was imported."""
    file = variant.runs[0].training.record.checkpoint
    return {
        "Variant": f"`{variant.name}`",
        "Generation": file["generation"].replace("_", " "),
        "Bytes": str(file["bytes"]),
        "sha256": f"`{file['sha256']}`",
        "From": plain(file["url"] or f"local file {file['file']}"),
    }


def _data(study: Study) -> list[dict[str, str]]:
    seen: dict[tuple[str, str], Variant] = {}
    for variant in study.ran:
        seen.setdefault((variant.spec.name, variant.split), variant)
    return [
        {
            "Dataset": f"`{name}`{' (declared part)' if variant.is_part else ''}",
            "Evaluated split": split,
            "Images": str(len(variant.ids)),
            "Classes": str(len(variant.spec.classes)),
            "Ignored %": percent(variant.prepared.info["ignore_share"][split]) if variant.prepared else NONE,
            "Fingerprint": f"`{variant.runs[0].data_fingerprint[:16]}`",
        }
        for (name, split), variant in seen.items()
    ]
