"""Chapters about images: what the datasets hold, pictures of pairs, and the images that are segmented worst."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import PRIMARY, PROTOCOL_NAMES
from pipeline.datasets.prepared import evenly_spaced, read_image, read_label
from pipeline.reporting import figures
from pipeline.reporting.page import Figure, Section, Table, section
from pipeline.reporting.study import Pair, Study, Variant
from pipeline.reporting.words import class_share, listing, percent, plain
from pipeline.results.metrics import iou
from pipeline.results.record import EvaluationFiles

PICTURES = 4  # per pair, and of a dataset
WORST = 5  # images per variant


def data(study: Study) -> Section | None:
    """How often each class occurs in the images that train and test, and some of them; records in Git lack the data."""
    first = {variant.spec.name: variant for variant in reversed(study.ran) if variant.prepared is not None}
    if not first:
        return None
    blocks: list[Table | Figure] = []
    for name, variant in sorted(first.items()):
        blocks.append(Table(f"Classes of {name}", _class_rows(variant)))
        if variant.spec.shown:
            blocks.append(_samples(variant))
    return section("data", "data", blocks=blocks)


def pictures(study: Study) -> Section | None:
    """The same images for every pair of a dataset, chosen before anything was predicted."""
    pairs = [pair for pair in study.pairs if not study.is_recorded and study.variants[pair[1]].spec.shown]
    if not pairs:
        return None
    blocks, seed = [_pictures(study, pair) for pair in pairs], study.seeds(pairs[0])[0]
    return section("pictures", "pictures", blocks=blocks, shown=PICTURES, protocol=PROTOCOL_NAMES[PRIMARY], seed=seed)


def worst(study: Study) -> Section | None:
    """The images with the lowest IoU of each variant, with the IoU of the other side of its pair."""
    if study.is_recorded:
        return None
    groups = [*(study.sides(pair) for pair in study.pairs), *((variant,) for variant in study.unpaired)]
    tables = [Table(f"Worst images of {variants[-1].name}", _worst_rows(variants)) for variants in groups]
    return section("worst", "worst", tables=tables, number=WORST, protocol=PROTOCOL_NAMES[PRIMARY])


def _class_rows(variant: Variant) -> list[dict[str, str]]:
    splits = [*variant.benchmark.dataset.train_splits, variant.split]
    tables = {split: variant.prepared.split([split])["histogram"].dropna() for split in dict.fromkeys(splits)}
    counts = {split: np.stack(found)[:, :-1] for split, found in tables.items() if len(found)}  # (N, K) pixels
    rows = []
    for k, name in enumerate(variant.spec.classes):
        row = {"Class": plain(name)}
        for split, pixels in counts.items():
            row[f"{split}: pixels %"] = class_share(pixels[:, k].sum() / pixels.sum())
            row[f"{split}: images"] = f"{int((pixels[:, k] > 0).sum())} of {len(pixels)}"
        rows.append(row)
    return rows


def _samples(variant: Variant) -> Figure:
    table = variant.prepared.split(variant.benchmark.dataset.train_splits).dropna(subset="label")
    table = table if len(table) else variant.prepared.split([variant.split])
    rows = table.iloc[evenly_spaced(len(table), PICTURES)]
    pictures = [(read_image(row.image), read_label(row.label)) for row in rows.itertuples()]
    return Figure(
        f"samples-{variant.spec.name}",
        partial(figures.samples, pictures, variant.spec),
        f"Images of {variant.spec.name} and their labels: {listing(rows['id'].tolist())}.",
        f"{plain(variant.spec.name)}: images and labels, evenly spaced over the {len(table)} of the split.",
    )


def _image_miou(variant: Variant) -> NDArray[np.float64]:
    """mIoU of each single image (N,), mean over the seeds; NaN without any valid pixel."""
    found = np.stack([iou(*run.counts[PRIMARY]) for run in variant.runs])  # (S, N, K)
    with np.errstate(invalid="ignore"):
        return (np.nansum(found, axis=2) / (~np.isnan(found)).sum(axis=2)).mean(axis=0)


def _worst_rows(variants: tuple[Variant, ...]) -> list[dict[str, str]]:
    values = {variant.name: _image_miou(variant) for variant in variants}  # (N,) each
    last = values[variants[-1].name]
    order = [int(i) for i in np.argsort(last, kind="stable") if not np.isnan(last[i])][:WORST]
    return [
        {"Image": f"`{variants[-1].ids[i]}`"} | {f"{name} %": percent(found[i]) for name, found in values.items()}
        for i in order
    ]


def _pictures(study: Study, pair: Pair) -> Figure:
    without, with_ = study.sides(pair)
    sides: list[EvaluationFiles] = [without.runs[0].evaluation, with_.runs[0].evaluation]
    table = with_.prepared.split([with_.split]).set_index("id")
    stored = sides[1].record.panel
    panels = [
        figures.Panel(
            image_id,
            read_image(table.loc[image_id, "image"]),
            read_label(table.loc[image_id, "label"]),
            *(read_label(side.existing_prediction(image_id)) for side in sides),
        )
        for image_id in (stored[i] for i in evenly_spaced(len(stored), PICTURES))
    ]
    places = listing([with_.ids.index(panel.id) + 1 for panel in panels])
    shares = [
        f"{p.id}: only without {percent(p.shares[0], 1)} %, only with {percent(p.shares[1], 1)} %" for p in panels
    ]
    return Figure(
        f"pictures-{with_.name}",
        partial(figures.pictures, panels, with_.spec),
        f"Pictures, truth and predictions of {study.label(pair)}. Share of pixels right in one of the two: "
        f"{'; '.join(shares)}.",
        f"{plain(study.label(pair))}: images {places} of {len(with_.ids)}. Light grey: not annotated. Last column: "
        f"blue where only {plain(without.name)} is right, orange where only {plain(with_.name)} is, with their shares "
        "of the annotated pixels.",
    )
