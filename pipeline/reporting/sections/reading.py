"""Chapter 12: what the numbers mean, and what they do not."""

from __future__ import annotations

from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Section, Text
from pipeline.reporting.results import Result, Study
from pipeline.reporting.sections.provenance import ablated
from pipeline.reporting.wording import listing, plural
from pipeline.results.statistics import SAMPLES

MEANING = f"""### What the numbers mean

- **mIoU** is the mean over classes of intersection over union, from pixel counts summed over all images. Pixels without
  annotation never count. A class that is neither annotated nor predicted is left out; one that is predicted but never
  annotated counts as 0.
- **95 % interval**: {SAMPLES} times, seeds and images are drawn anew with replacement and everything is recomputed; the
  interval holds the middle 95 % of the outcomes. It answers: how far might the number move with other images of the
  same kind and other seeds? It says nothing about other datasets, other hyperparameters or errors in the method.
- **SD over seeds** is the standard deviation between trainings that differ in nothing but the seed, all measured on
  the same images.
- **Gain** is paired: both sides see the same resampled images and matched seeds, so its interval is narrower than the
  two intervals beside each other suggest. **Not resolved** means that the data do not settle the sign of the gain; it
  does not mean that there is none.
- **Probability of gain** is the share of resamples with a positive gain. It is a description of the bootstrap, not
  the outcome of a significance test."""


def section(analysis: Analysis) -> Section:
    """Explanations, then the limitations of this very study."""
    limits = "\n".join(f"- {limit}" for limit in limitations(analysis.study))
    return Section("reading", "How to read this report", (Text(MEANING), Text(f"### Limitations\n\n{limits}")))


def limitations(study: Study) -> list[str]:
    """Reservations that follow from the configuration and the data at hand."""
    found = [_seeds(len(study.project.seeds))] if study.trained else []
    if len(study.trained) < len(study.results):
        found.append(
            "A published checkpoint is one training of unknown seed, and which of their trainings the authors chose is "
            "not known: its number says that the file can be evaluated here, not that it can be trained again."
        )
    found += [
        f"`{result.id}` is tested on `{result.split}`, the split that also chose its checkpoint: its numbers are "
        "optimistic."
        for result in study.trained
        if result.benchmark.inference.checkpoint == "best" and result.split == result.benchmark.dataset.validation_split
    ]
    found += [
        f"`{result.id}` is scored on `{result.split}`, whose images it was trained on: its numbers say nothing about "
        "new images."
        for result in study.results
        if result.split in result.benchmark.dataset.train_splits
    ]
    if parts := sorted({result.spec.name for result in study.results if result.is_part}):
        found.append(
            f"Only a declared part of {listing(parts)} was used: no number from it compares with a published one."
        )
    small = sorted({f"{result.spec.name} ({plural(len(result.ids), 'image')})" for result in _few(study)})
    if small:
        found.append(f"Few test images: {listing(small)}. Rare classes rest on a handful of objects.")
    found.append(
        "Images are resampled as if independent. Frames of one video or of one place resemble each other, and then the "
        "intervals are too narrow."
    )
    if not any(study.result(row.id) for row in study.rows):
        found.append(
            "None of the published rows is among the benchmarks: dataset, encoder, resolution or schedule differ from "
            "the paper's, and neither a gain nor its absence carries over to them by itself."
        )
    if ablated(study.project.ablation):
        found.append("An ablation is active, see [provenance](#provenance).")
    found.append(
        "The two sides of a pair share every hyperparameter. None was tuned for either, so a gain may partly be a "
        "matter of which side suits them better."
    )
    return found


def _seeds(seeds: int) -> str:
    if seeds == 1:
        return (
            "**One seed.** Every interval covers the images only. Trainings of one segmentation benchmark commonly "
            "differ by several tenths of a point between seeds, so a gain of that size may be chance, whatever its "
            "interval."
        )
    # Share of 95 % intervals that hold the truth when seeds alone vary (normal values, simulated for `seed_weights`).
    covered = {2: "60", 3: "80", 4: "83", 5: "85"}.get(seeds)
    if covered is None:
        return f"{seeds} seeds give a fair but not a sharp picture of the spread between trainings."
    return (
        f"**{plural(seeds, 'seed')}.** The spread between trainings is estimated from {seeds} values. If it were the "
        f"only source of error, such a 95 % interval would hold the truth only about {covered} % of the time; the part "
        "that comes from the images is on firmer ground."
    )


def _few(study: Study) -> list[Result]:
    return [result for result in study.results if len(result.ids) < 300]
