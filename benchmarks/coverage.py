"""How often the 95 % intervals of gains hold the truth: `python -m benchmarks.coverage [--replications N]`.

Pixel counts are drawn with a known gain, and go through the functions that the report calls. A training's gain differs
from the truth by what is common to all images, by what images do to all trainings, and by what an image does to this
training (interaction). Ratios are variances of these parts of the mean over all images, divided by the first one.
The true gain is zero, so that the same run shows how often a p-value below 0.01 is wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.results.metrics import Counts
from pipeline.results.statistics import pooled_gain, scores

SETTINGS = ((1, 2), (1, 3), (1, 5), (1, 10), (4, 2))  # pairs of models that are pooled, seeds
RATIOS = (0.0, 0.05, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # variance of the images' part to that between trainings
INTERACTIONS = (0.0, 1.0)  # the same, of seed by image
IMAGES, PIXELS = 100, 1e9  # pixels per image: enough for rounding not to matter
SPREAD = 0.004  # standard deviation of IoU between trainings


def _counts(level: np.ndarray) -> Counts:
    """Counts (S, N, 1) whose IoU is `level` (S, N), of a union of `PIXELS`: means of IoU add up."""
    intersection = np.round(PIXELS * level[..., None])
    marked = intersection + np.round((PIXELS - intersection) / 2)  # half of the union's rest is predicted only
    return Counts(intersection, PIXELS + intersection - marked, marked)


def simulate(
    pairs: int, seeds: int, ratio: float, interaction: float, replications: int, samples: int = 200
) -> tuple[float, float]:
    """Shares of the intervals that hold the true gain, and of the p-values below 0.01."""
    rng = np.random.default_rng([pairs, seeds, int(1000 * ratio), int(1000 * interaction)])
    blocks, held, small = np.arange(IMAGES), 0, 0
    for _ in range(replications):
        of_images = rng.normal(0, SPREAD * np.sqrt(IMAGES * ratio), size=IMAGES)
        sides = []
        for _ in range(pairs):
            shared = 0.6 + rng.normal(0, 0.05, size=(seeds, IMAGES))  # what both sides of a pair have in common
            own = rng.normal(0, SPREAD * np.sqrt(IMAGES * interaction), size=(seeds, IMAGES))
            moved = shared + rng.normal(0, SPREAD, size=(seeds, 1)) + of_images + own
            sides.append(tuple(scores(_counts(level), blocks, samples) for level in (shared, moved)))
        estimate = pooled_gain(sides)
        held += estimate.low <= 0 <= estimate.high
        small += estimate.p < 0.01
    return held / replications, small / replications


def table(found: Sequence[dict[str, float]], value: str) -> str:
    """Markdown: one row per number of seeds and interaction, one column per ratio; `value` of the cells in percent."""
    lines = ["| pairs | seeds | interaction | " + " | ".join(f"{ratio:g}" for ratio in RATIOS) + " |"]
    lines.append("|---:|---:|---:|" + "---:|" * len(RATIOS))
    for interaction in INTERACTIONS:
        for pairs, seeds in SETTINGS:
            cells = [
                f"{100 * each[value]:.1f}"
                for each in found
                if (each["pairs"], each["seeds"], each["interaction"]) == (pairs, seeds, interaction)
            ]
            lines.append(f"| {pairs} | {seeds} | {interaction:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate every cell, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000, help="intervals per cell")
    parser.add_argument("--json", type=Path, help="also write the cells to this file")
    options = parser.parse_args()
    started = time.perf_counter()
    cells = [(*setting, r, i) for i in INTERACTIONS for setting in SETTINGS for r in RATIOS]
    found = []
    for f, s, r, i in tqdm(cells, unit="cell", disable=None):
        held, small = simulate(f, s, r, i, options.replications)
        found.append({"pairs": f, "seeds": s, "ratio": r, "interaction": i, "held": held, "below_0.01": small})
    print(f"Intervals that hold the truth, %\n\n{table(found, 'held')}\n")
    print(f"p-values below 0.01, %\n\n{table(found, 'below_0.01')}\n")
    seconds = round(time.perf_counter() - started)
    print(f"{options.replications} intervals per cell, {seconds} s")
    if options.json:
        data = {"replications": options.replications, "images": IMAGES, "seconds": seconds, "cells": found}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
