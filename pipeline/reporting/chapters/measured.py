"""Chapters about single variants: scores, boundaries, curves, confusion, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PRIMARY, PROTOCOL_NAMES, PROTOCOLS
from pipeline.reporting import figures
from pipeline.reporting.chapters.compared import SHORT, validation
from pipeline.reporting.chapters.origin import commit_of
from pipeline.reporting.page import Figure, Section, Table, section
from pipeline.reporting.study import Study, Variant
from pipeline.reporting.words import (
    NONE,
    duration,
    image_interval,
    listing,
    memory_size,
    millions,
    operations,
    percent,
    percent_interval,
    plain,
    points,
    points_interval,
    protocol,
    short_time,
)
from pipeline.results.record import BOUNDARY
from pipeline.results.run import Run

CHANGES = 6  # rows of the table of mistakes that changed most


def scores(study: Study) -> Section:
    """Every variant that was run: how well it fits the training data, and its mIoU on validation and test split."""
    several = any(len(variant.runs) > 1 for variant in study.ran)
    rows, drawn = [], []
    for variant in study.ran:
        losses = [run.training_loss for run in variant.runs if run.training_loss is not None]
        row = {
            "Variant": f"`{variant.name}`",
            "Title": plain(variant.title),
            "Seeds": listing([run.seed for run in variant.runs]),
            "Training loss": f"{np.mean(losses):.3f}" if losses else NONE,
            "Validation %": percent(validation(study, variant.name)),
        }
        estimates = {name: study.score(variant.name, name) for name in PROTOCOLS}
        for name, estimate in estimates.items():
            row[f"{SHORT[name]} %"] = percent(estimate.value)
            row |= {f"{SHORT[name]}: SD over seeds": percent(estimate.deviation)} if several else {}
            row[f"{SHORT[name]}: 95 % interval"] = percent_interval(estimate)
        rows.append(
            row | {"Parameters": millions(variant.runs[0].parameters["total"]), "Tested on": tested_on(variant)}
        )
        drawn.append((variant, estimates))
    values = [f"{variant.name} {percent(estimates[PRIMARY].value)} %" for variant, estimates in drawn]
    tested = {v.split if v.split != v.benchmark.dataset.validation_split else "" for v in study.ran}
    other = "evaluated" if len(tested) > 1 else tested.pop()
    caption = f"mIoU on validation and {other} split" if other else "mIoU on the validation split"
    figure = Figure(
        "scores",
        partial(figures.dots, drawn),
        f"Dot plot of mIoU with intervals. {PROTOCOL_NAMES[PRIMARY].capitalize()}: {'; '.join(values)}.",
        "Large dots: mean over seeds, with the 95 % interval. Small dots: single seeds.",
    )
    return section(
        "scores",
        "scores",
        table=Table(caption, rows),
        figure=figure,
        protocols={name: _users(study, name) for name in PROTOCOLS},
        names=PROTOCOL_NAMES,
        compared=bool(study.comparisons),
        runs=Table("Every run", [_line(run) for run in study.runs]),
    )


def boundaries(study: Study) -> Section | None:
    """Scores near the boundaries of the classes, and what each pair differs by; records of older commits lack them."""
    if not all(BOUNDARY[PRIMARY] in run.counts for run in study.runs):
        return None
    rows = []
    for variant in study.ran:
        row = {"Variant": f"`{variant.name}`"}
        for name in PROTOCOLS:
            estimate = study.score(variant.name, BOUNDARY[name])
            row[f"{SHORT[name]} %"] = percent(estimate.value)
            row[f"{SHORT[name]}: 95 % interval"] = percent_interval(estimate)
        rows.append(row)
    changes = []
    for pair in study.pairs:
        row = {"Difference": plain(study.label(pair))}
        for name in PROTOCOLS:
            estimate = study.gain([pair], BOUNDARY[name])
            interval = points_interval(estimate) if estimate.covers_seeds else f"{image_interval(estimate)} over images"
            row |= {f"{SHORT[name]}, points": points(estimate.value), f"{SHORT[name]}: 95 % interval": interval}
        changes.append(row)
    tables = [Table("Boundary IoU, mean over classes", rows)]
    tables += [Table("Difference in boundary IoU", changes)] if changes else []
    return section("boundaries", "boundaries", tables=tables)


def tested_on(variant: Variant) -> str:
    """The scored split, and what makes it another one than its name suggests."""
    remarks = ["local"] * variant.server_scored + ["subset"] * variant.is_part
    return f"{variant.spec.name} {variant.split}" + (f" ({', '.join(remarks)})" if remarks else "")


def curves(study: Study) -> Section | None:
    """Learning curves per pair, and per variant without a partner; imported checkpoints have none.

    Of records in Git the validation curves alone, as a table.
    """
    if study.is_recorded:
        recorded = [variant for variant in study.ran if all(len(run.validation_curve) > 1 for run in variant.runs)]
        rows = [_validated(variant) for variant in recorded]
        return section("curves", "validation", table=Table("Validation mIoU while training", rows)) if rows else None
    blocks = []
    for name, label, variants in _groups(study):
        trained = [variant for variant in variants if not variant.imported]
        ends = [_ends(variant) for variant in trained]
        if trained:
            blocks.append(
                Figure(
                    f"curves-{name}",
                    partial(figures.curves, trained),
                    f"Learning curves of {label}: loss, validation mIoU and learning rate. {' '.join(ends)}",
                    f"{plain(label)}. Validation mIoU per seed: {' '.join(ends)}",
                )
            )
    return section("curves", "curves", blocks=blocks) if blocks else None


def _validated(variant: Variant) -> dict[str, str]:
    """The curve's mean over seeds: the last five validations, and what the last of them still gained."""
    epochs = [epoch for epoch, _ in variant.runs[0].validation_curve][-5:]
    means = np.mean([[miou for _, miou in run.validation_curve][-5:] for run in variant.runs], axis=0)
    return {
        "Variant": f"`{variant.name}`",
        "After epochs": ", ".join(map(str, epochs)),
        "mIoU %, mean over seeds": " → ".join(percent(value) for value in means),
        "Last step, points": points(means[-1] - means[-2]),
        "Seeds": str(len(variant.runs)),
    }


def confusion(study: Study) -> Section | None:
    """Which classes are taken for which, and the change within each pair."""
    blocks: list[Figure | Table] = []
    for name, label, variants in _groups(study):
        names = variants[-1].spec.classes
        shares = [normalised(_summed(variant)) for variant in variants]
        alt = f"Confusion matrix of {variants[-1].name}. {_worst(shares[-1], names)}"
        caption = f"{plain(variants[-1].name)}, percent of the true class."
        if len(shares) == 1:
            draw = partial(figures.confusion, shares[0], None, names)
            blocks.append(Figure(f"confusion-{name}", draw, alt, caption))
            continue
        before, after = shares
        cells = _largest_changes(before, after)
        largest = [f"{names[i]} as {names[j]} {points(after[i, j] - before[i, j], 1)} points" for i, j in cells[:3]]
        blocks.append(
            Figure(
                f"confusion-{name}",
                partial(figures.confusion, after, after - before, names),
                f"{alt} Beside it the change against {variants[0].name}, most of all: {'; '.join(largest) or 'none'}.",
                f"Left: {caption} Right: change against {plain(variants[0].name)} in points; off the diagonal, blue "
                "means fewer mistakes of that kind.",
            )
        )
        rows = [
            {
                "Mistake": f"{plain(names[i])} taken for {plain(names[j])}",
                "Without %": percent(before[i, j], 1),
                "With %": percent(after[i, j], 1),
                "Change, points": points(after[i, j] - before[i, j], 1),
            }
            for i, j in cells
        ]
        blocks.append(Table(f"Mistakes that changed most, {label} (percent of the true class)", rows))
    return section("confusion", "confusion", blocks=blocks, protocol=PROTOCOL_NAMES[PRIMARY]) if blocks else None


def cost(study: Study) -> Section:
    """Mean over seeds of time and memory; parameters and operations; what each pair's second side adds."""
    rows, counted = [], any(run.flops is not None for run in study.runs)
    for variant in study.ran:
        parameters = variant.runs[0].parameters
        row = {
            "Variant": f"`{variant.name}`",
            "Training": "import, " * variant.imported + duration(_over(variant, lambda r: r.training_seconds)),
            "Evaluation": duration(_over(variant, lambda r: r.evaluation_seconds)),
            "Parameters": millions(parameters["total"]),
            "of the encoder": millions(parameters["encoder"]),
            "of the head": millions(parameters["head"]),
        }
        row |= {"Operations": operations(variant.runs[0].flops)} if counted else {}
        if not study.is_recorded:
            costs = [run.training.cost for run in variant.runs]
            row |= {
                "Per iteration": short_time(_per_iteration(variant)),
                "Evaluation per image": short_time(_per_image(variant)),
                "Peak memory": memory_size(max(each.peak_memory_bytes or 0 for each in costs)),
                "Device": listing(sorted({each.device for each in costs})),
            }
        rows.append(row)
    pairs = [] if study.is_recorded else study.pairs
    overheads = {study.label(pair): _overhead(*study.sides(pair)) for pair in pairs}
    imported = len(study.trained) < len(study.ran)
    about = {"imported": imported, "is_recorded": study.is_recorded, "counted": counted}
    return section("cost", "cost", table=Table("Cost", rows), overheads=overheads, **about)


def normalised(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows (K, K) as shares of the true class; NaN where a class has no pixel."""
    total = matrix.sum(axis=1, keepdims=True).astype(np.float64)
    return np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)


def _users(study: Study, name: str) -> dict[str, list[str]]:
    """Each way to test under the protocol `name`, and the variants that are tested so."""
    users: dict[str, list[str]] = {}
    for variant in study.ran:
        users.setdefault(protocol(variant.benchmark.inference.protocols[name]), []).append(variant.name)
    return users


def _line(run: Run) -> dict[str, str]:
    primary = run.scores[PRIMARY]
    return {
        "Variant": f"`{run.name}`",
        "Seed": str(run.seed),
        **{f"{SHORT[name]} mIoU %": percent(run.scores[name].miou) for name in PROTOCOLS},
        "Pixel accuracy %": percent(primary.pixel_accuracy),
        "Mean accuracy %": percent(primary.mean_accuracy),
        "Configuration": f"`{run.config_hash}`",
        "Run key": f"`{run.run_key}`",
        "Commit": commit_of(run),
        "Finished": run.finished.replace("T", " ")[:16],
    }


def _groups(study: Study) -> list[tuple[str, str, tuple[Variant, ...]]]:
    """(name, label, variants) of every pair, and of every variant without a partner, if their files are available."""
    if study.is_recorded:
        return []
    pairs = [(pair[1], study.label(pair), study.sides(pair)) for pair in study.pairs]
    return [*pairs, *((variant.name, variant.name, (variant,)) for variant in study.unpaired)]


def _ends(variant: Variant) -> str:
    records = [run.training.record for run in variant.runs]
    last = [percent(record.final["miou"]) for record in records]
    best = [f"{percent(record.best['miou'])} (epoch {record.best['epoch']})" for record in records]
    return f"{plain(variant.name)}: last {listing(last)} %, best {listing(best)} %."


def _summed(variant: Variant) -> NDArray[np.int64]:
    return np.sum([run.evaluation.confusion[PRIMARY] for run in variant.runs], axis=0)


def _largest_changes(before: NDArray, after: NDArray) -> list[tuple[int, int]]:
    """Off-diagonal cells by absolute change, largest first."""
    change = np.nan_to_num(np.abs(after - before))
    np.fill_diagonal(change, 0.0)
    flat = np.argsort(-change, axis=None, kind="stable")[:CHANGES]
    cells = zip(*np.unravel_index(flat, change.shape), strict=True)
    return [(int(i), int(j)) for i, j in cells if change[i, j] > 0]


def _worst(values: NDArray, names: Sequence[str]) -> str:
    mistakes = np.nan_to_num(values.copy())
    np.fill_diagonal(mistakes, 0.0)
    i, j = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return f"Most frequent mistake: {percent(values[i, j], 1)} % of {names[i]} taken for {names[j]}."


def _over(variant: Variant, value: Callable[[Run], float]) -> float:
    return float(np.mean([value(run) for run in variant.runs]))


def _per_iteration(variant: Variant) -> float | None:
    """None for an imported checkpoint, which was not trained here."""
    return None if variant.imported else _over(variant, lambda run: run.training.cost.seconds_per_iteration)


def _per_image(variant: Variant) -> float:
    return _over(variant, lambda run: run.evaluation.cost.seconds_per_image)


def _overhead(without: Variant, with_: Variant) -> str:
    before, after = (variant.runs[0].parameters["total"] for variant in (without, with_))
    parts = [f"{_relative(before, after)} parameters ({millions(after - before)})"]
    parts.append(f"{_relative(without.runs[0].flops, with_.runs[0].flops)} operations")
    iterations = _per_iteration(without), _per_iteration(with_)
    if None not in iterations:
        parts.append(f"{_relative(*iterations)} time per training iteration")
    return ", ".join([*parts, f"{_relative(_per_image(without), _per_image(with_))} time per evaluated image"])


def _relative(before: float, after: float) -> str:
    return f"{points(after / before - 1, 0)} %"
