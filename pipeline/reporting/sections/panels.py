"""Chapter 7: pictures, chosen before anything was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets import IGNORE_INDEX
from pipeline.datasets.prepared import read_image, read_label
from pipeline.datasets.spec import colourise
from pipeline.errors import PipelineError
from pipeline.reporting.analysis import PRIMARY, Analysis
from pipeline.reporting.content import Block, Figure, Section, Text
from pipeline.reporting.results import Pair
from pipeline.reporting.style import BASELINE, MEMORY, canvas, patches, styled, to_png
from pipeline.reporting.wording import PROTOCOLS, listing, percent

SHOWN = 4  # pictures per pair
WIDTH = 320  # pixels; larger pictures are shrunk for the page
LEGEND = 24  # classes named below the pictures

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """One image at its original size, with the label maps (H, W) of truth and both sides."""

    id: str
    image: Rgb
    truth: NDArray[np.uint8]
    baseline: NDArray[np.uint8]
    memory: NDArray[np.uint8]

    @property
    def only_baseline(self) -> NDArray[np.bool_]:
        """Valid pixels (H, W) that only the baseline has right."""
        return (self.truth != IGNORE_INDEX) & (self.baseline == self.truth) & (self.memory != self.truth)

    @property
    def only_memory(self) -> NDArray[np.bool_]:
        """Valid pixels (H, W) that only the memory has right."""
        return (self.truth != IGNORE_INDEX) & (self.memory == self.truth) & (self.baseline != self.truth)

    @property
    def shares(self) -> tuple[float, float]:
        """(only baseline, only memory) as shares of the valid pixels."""
        valid = max(1, int((self.truth != IGNORE_INDEX).sum()))
        return self.only_baseline.sum() / valid, self.only_memory.sum() / valid


def section(analysis: Analysis) -> Section:
    """The same images for every pair of a dataset."""
    study = analysis.study
    if not study.pairs:
        return Section("panels", "Pictures", (Text("Pictures compare a benchmark with its baseline; none is paired."),))
    seed = study.project.seeds[0]
    blocks: list[Block] = [
        Text(
            f"No picture was picked by its result: the evaluation stores predictions for images at fixed positions of "
            f"the split, and shown are {SHOWN} of them (all, if fewer), evenly spaced. Predictions: "
            f"{PROTOCOLS[PRIMARY]}, seed {seed}, the first in `params.yaml`. The last column is coloured only where "
            "exactly one of the two is right."
        )
    ]
    blocks += [_figure(analysis, pair) for pair in study.pairs]
    return Section("panels", "Pictures", tuple(blocks))


def choose(panel: Sequence[str]) -> list[str]:
    """At most SHOWN ids, evenly spaced over the stored ones."""
    positions = np.linspace(0, len(panel) - 1, min(SHOWN, len(panel))).round().astype(int)
    return [panel[i] for i in positions]


def _figure(analysis: Analysis, pair: Pair) -> Figure:
    panels = _load(analysis, pair)
    ids, label = pair.memory.ids, analysis.label(pair)
    places = listing([str(ids.index(panel.id) + 1) for panel in panels])
    told = [
        f"{panel.id}: only without memory {percent(panel.shares[0], 1)} %, only with {percent(panel.shares[1], 1)} %"
        for panel in panels
    ]
    return Figure(
        f"panels-{pair.memory.id}",
        partial(_draw, panels, pair),
        f"Pictures, truth and predictions of {label} without and with memory. Share of pixels right in one of the two: "
        f"{'; '.join(told)}.",
        f"{label}: images {places} of {len(ids)}. Light grey: not annotated. Last column: blue where only the baseline "
        "is right, orange where only the memory is, with their shares of the annotated pixels.",
    )


def _load(analysis: Analysis, pair: Pair) -> list[Panel]:
    sides = (pair.baseline.runs[0], pair.memory.runs[0])
    table = pair.memory.prepared.split([pair.memory.split]).set_index("id")
    return [
        Panel(
            image_id,
            read_image(table.loc[image_id, "image"]),
            read_label(table.loc[image_id, "label"]),
            *(_prediction(analysis.study.root, run.prediction_file(image_id)) for run in sides),
        )
        for image_id in choose(sides[1].evaluation["panel"])
    ]


def _prediction(root: Path, path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        name = path.relative_to(root)
        raise PipelineError(f"{name}: no such file; rerun the stage evaluate-msflip of {name.parts[2]}: `dvc repro`")
    return read_label(path)


def _difference(panel: Panel) -> Rgb:
    """The image, faded to light grey, under the two colours."""
    grey = cv2.cvtColor(panel.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = np.repeat((215 + grey * 0.15)[..., None], 3, axis=2).astype(np.uint8)
    for mask, colour in ((panel.only_baseline, BASELINE), (panel.only_memory, MEMORY)):
        faded[mask] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return faded


def _shrink(picture: Rgb, interpolation: int) -> Rgb:
    height, width = picture.shape[:2]
    if width <= WIDTH:
        return picture
    return cv2.resize(picture, (WIDTH, round(height * WIDTH / width)), interpolation=interpolation)


@styled
def _draw(panels: list[Panel], pair: Pair) -> bytes:
    palette, names = pair.memory.spec.palette, pair.memory.spec.classes
    ratio = np.mean([panel.image.shape[0] / panel.image.shape[1] for panel in panels])
    figure = canvas(13, len(panels) * (2.5 * ratio + 0.25) + 1.0)
    grid = figure.subplots(len(panels), 5, squeeze=False)
    for row, panel in zip(grid, panels, strict=True):
        maps = [_shrink(colourise(m, palette), cv2.INTER_NEAREST) for m in (panel.truth, panel.baseline, panel.memory)]
        pictures = [_shrink(panel.image, cv2.INTER_AREA), *maps, _shrink(_difference(panel), cv2.INTER_NEAREST)]
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
        baseline, memory = panel.shares
        place = {"transform": row[4].transAxes, "va": "top", "fontsize": 9, "fontweight": "bold"}
        row[4].text(0.0, -0.03, f"{percent(baseline, 1)} %", color=BASELINE, ha="left", **place)
        row[4].text(1.0, -0.03, f"{percent(memory, 1)} %", color=MEMORY, ha="right", **place)
        row[0].text(0.0, -0.03, panel.id, transform=row[0].transAxes, va="top", fontsize=8)
    for axes, title in zip(
        grid[0], ("Image", "Truth", "Without memory", "With memory", "Only one is right"), strict=True
    ):
        axes.set_title(title)
    counted = np.sum(
        [np.bincount(m.ravel(), minlength=256) for p in panels for m in (p.truth, p.baseline, p.memory)], axis=0
    )
    seen = [int(k) for k in np.argsort(-counted[: len(names)], kind="stable") if counted[k] > 0]
    legend = [(names[k], "#{:02x}{:02x}{:02x}".format(*palette[k])) for k in sorted(seen[:LEGEND])]
    figure.legend(handles=patches(legend), loc="outside lower center", ncols=min(len(legend), 8), fontsize=9)
    return to_png(figure)
