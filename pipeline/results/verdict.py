"""Did a rerun reproduce? One word for each score and gain, from reference records or from a published number.

*identical*: every training has the weights of a reference training with its seed, bit for bit, and the same score.
*reproduced*: inside the interval in which the mean over as many further seeds falls with 95 %, for all judgements of a
table together (Bonferroni). *different*: outside, or a memory that was never written, whatever the score. *not
comparable*: other configuration, data or precision, or nothing to compare with.

The seed is the unit: trainings with one seed on several kernels resemble each other, so each seed's mean counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Benchmark, for_evaluation
from pipeline.config.schema import PROTOCOLS
from pipeline.results.compare import TOLERANCE, compare, prediction_interval
from pipeline.results.published import changed_keys
from pipeline.results.reference import Reference
from pipeline.results.run import Run

Word = Literal["identical", "reproduced", "different", "not comparable"]
WORDS: tuple[Word, ...] = ("identical", "reproduced", "not comparable", "different")  # from best to worst
LEVEL = 0.95  # of all judgements of a table together

Pair = tuple[str, str]  # names of benchmarks: without, with


@dataclass(frozen=True)
class Verdict:
    """One line: a benchmark's score or a pair's gain under one protocol. Numbers in percent or percentage points."""

    names: tuple[str, ...]  # a benchmark, or the two sides of a gain
    protocol: str
    yours: float
    seeds: int
    reference: float | None  # mean over its seeds
    deviation: float | None  # between them
    reference_seeds: int
    interval: tuple[float, float] | None
    word: Word
    reason: str = ""

    @property
    def is_gain(self) -> bool:
        """Whether the numbers are differences."""
        return len(self.names) == 2


@dataclass(frozen=True)
class _Judged:
    """What a verdict is made of. yours: (S,), reference: (n seeds,), both in percent; identical: all weights are."""

    names: tuple[str, ...]
    protocol: str
    yours: NDArray[np.float64]
    reference: NDArray[np.float64]
    identical: bool
    obstacle: str
    fault: str = ""  # what makes it different whatever the numbers


def verdicts(
    runs: Mapping[str, tuple[Benchmark, Sequence[Run]]], pairs: Sequence[Pair], references: Mapping[str, Reference]
) -> list[Verdict]:
    """Judge runs by reference records: every benchmark, then every pair, under both protocols.

    runs: by name, the benchmark as it ran and its runs, at least one, by seed. pairs: those of the names whose gain is
    judged too. references: by the same names; what has none is not comparable.
    """
    judged = []
    for name, (benchmark, own) in runs.items():
        reference = references.get(name)
        obstacle = _obstacle(benchmark, own[0], reference)
        for protocol in PROTOCOLS:
            yours = np.array([100 * run.scores[protocol].miou for run in own])
            trainings = () if obstacle or not reference else reference.trainings
            others = _by_seed((training.seed, training.scores[protocol]) for training in trainings)
            same = not obstacle and all(_is_identical(run, protocol, reference) for run in own)
            fault = next((found for run in own if (found := _memory_fault(benchmark, run))), "")
            judged.append(_Judged((name,), protocol, yours, np.array(others), same, obstacle, fault))
    of = {(each.names[0], each.protocol): each for each in judged}
    for pair in pairs:
        mine = [{run.seed: run for run in runs[name][1]} for name in pair]
        seeds = sorted(set.intersection(*(set(own) for own in mine)))
        for protocol in PROTOCOLS:
            sides = [of[name, protocol] for name in pair]
            obstacle = next((side.obstacle for side in sides if side.obstacle), "" if seeds else "no common seed")
            before, after = (np.array([100 * own[seed].scores[protocol].miou for seed in seeds]) for own in mine)
            others = [] if obstacle else _paired(*(references[name] for name in pair), protocol)
            judged.append(
                _Judged(pair, protocol, after - before, np.array(others), all(s.identical for s in sides), obstacle)
            )
    comparable = sum(not each.obstacle for each in judged)
    return [_verdict(each, 1 - (1 - LEVEL) / max(1, comparable)) for each in judged]


def published_verdicts(file: Benchmark, benchmark: Benchmark, runs: Sequence[Run], found: list[str]) -> list[Verdict]:
    """Judge the runs of a published row by its published numbers, see `results.compare`.

    file: the row as params/ has it; benchmark: as it ran; found: see `compare.marks`.
    """
    made = []
    for protocol in PROTOCOLS:
        yours = np.array([100 * run.scores[protocol].miou for run in runs])
        compared = compare(file, protocol, yours, benchmark.mode == "import", found)
        if compared.published is None:
            continue  # not published under this protocol
        words: dict[str, Word] = {"yes": "reproduced", "of the paper's number only": "reproduced", "no": "different"}
        word = words.get(compared.verdict, "not comparable")
        interval = compared.interval
        if benchmark.mode == "import":
            interval = (compared.published - TOLERANCE, compared.published + TOLERANCE)
        reason = "" if compared.verdict in ("yes", "no") else compared.verdict
        published = compared.published
        made.append(
            Verdict((file.id,), protocol, compared.reproduced, len(runs), published, None, 1, interval, word, reason)
        )
    return made


def worst(found: Sequence[Verdict]) -> Word:
    """The word for all of them together."""
    return max((verdict.word for verdict in found), key=WORDS.index, default="not comparable")


def _obstacle(benchmark: Benchmark, run: Run, reference: Reference | None) -> str:
    """Why a benchmark cannot be judged; empty if it can."""
    if reference is None:
        return "no reference record"
    changed = changed_keys(reference.benchmark, for_evaluation(benchmark))
    if changed:
        return f"another configuration than the reference: {', '.join(changed)}"
    if run.precision != reference.precision:
        return f"another precision than the reference: {run.precision}, not {reference.precision}"
    if run.data_fingerprint != reference.data_fingerprint:
        return f"other data: fingerprint {run.data_fingerprint[:12]}, not {reference.data_fingerprint[:12]}"
    return ""


def _memory_fault(benchmark: Benchmark, run: Run) -> str:
    """That no class of a memory that training should write was ever written; empty if one was, or it is not known."""
    if benchmark.memory is None or benchmark.memory.content != "dataset" or run.training is None:
        return ""
    classes = run.counts[PROTOCOLS[0]].truth.shape[1]
    never = len(run.training.record.untouched_memory) == classes
    return f"the memory of seed {run.seed} was never written" if never else ""


def _is_identical(run: Run, protocol: str, reference: Reference | None) -> bool:
    digest = run.weights
    return reference is not None and any(
        (training.seed, training.weights, training.scores[protocol]) == (run.seed, digest, run.scores[protocol].miou)
        for training in reference.trainings
        if training.weights is not None
    )


def _paired(without: Reference, with_: Reference, protocol: str) -> list[float]:
    """Differences per seed of the trainings that share seed, kernels, threads and machine."""
    before = {training.key: training for training in without.trainings}
    return _by_seed(
        (after.seed, after.scores[protocol] - before[after.key].scores[protocol])
        for after in with_.trainings
        if after.key in before
    )


def _by_seed(values: Iterable[tuple[int, float]]) -> list[float]:
    """From (seed, fraction) to the mean of every seed, in percent."""
    found: dict[int, list[float]] = {}
    for seed, value in values:
        found.setdefault(seed, []).append(100 * value)
    return [float(np.mean(each)) for each in found.values()]


def _verdict(judged: _Judged, level: float) -> Verdict:
    number, seeds = len(judged.reference), len(judged.yours)
    mean = float(judged.reference.mean()) if number else None
    yours = float(judged.yours.mean()) if seeds else float("nan")
    deviation = interval = None
    word, reason = "not comparable", judged.obstacle
    if number > 1:
        deviation = float(judged.reference.std(ddof=1))
        interval = prediction_interval(judged.reference, seeds, level)
        word = "reproduced" if interval[0] - 1e-9 <= yours <= interval[1] + 1e-9 else "different"
    elif not reason:
        reason = f"{number} reference seed has no spread to judge by"
    if judged.identical:
        word, reason = "identical", ""
    if judged.fault:
        word, reason = "different", judged.fault
    return Verdict(judged.names, judged.protocol, yours, seeds, mean, deviation, number, interval, word, reason)
