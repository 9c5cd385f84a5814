"""A published number beside the one measured here: judged by one stated rule, and only where both mean the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.config import Benchmark
from pipeline.config.schema import Scores
from pipeline.reporting.analysis import Analysis
from pipeline.reporting.results import Result, Study
from pipeline.results.published import changed_keys, published_of

TOLERANCE = 0.1  # points: what the authors themselves allow for another environment


@dataclass(frozen=True)
class Comparison:
    """One protocol of one benchmark. Numbers in percent as the authors print them, with two decimals.

    difference: reproduced - published; None when the numbers do not mean the same. interval: of the seeds, see
    `prediction_interval`. verdict: yes, no, the paper's number only, or why there is none.
    """

    published: float | None
    paper: float | None  # the paper repository's number where it differs from the model zoo's
    reproduced: float
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str


def marks(study: Study, result: Result) -> list[str]:
    """Why a result is not one of its published row: a part of the data, a server's test set, another configuration."""
    found = []
    if result.is_part:
        found.append("subset: not comparable")
    if result.server_scored:
        found.append("server")
    changed = changed_keys(file_of(study, result), result.benchmark)
    return found + [f"changed: `{key}`" for key in changed]


def file_of(study: Study, result: Result) -> Benchmark:
    """The published benchmark's file that a result is of."""
    return next(benchmark for benchmark in study.published if benchmark.id == result.id)


def is_published(study: Study, result: Result) -> bool:
    """Whether there are published numbers of this benchmark at all."""
    return any(benchmark.id == result.id for benchmark in study.published)


def numbers(benchmark: Benchmark, protocol: str) -> tuple[float | None, float | None]:
    """(published, paper) in percent: the model zoo's number, and the paper's where it differs; or the only one."""
    published = published_of(benchmark)
    zoo, paper = (_score(scores, protocol) for scores in (published.model_zoo, published.paper))
    if zoo is None:
        return paper, None
    return zoo, paper if paper != zoo else None


def compare(analysis: Analysis, result: Result, protocol: str) -> Comparison:
    """A result of a published benchmark with its published numbers."""
    study = analysis.study
    published, paper = numbers(file_of(study, result), protocol)
    measured = 100 * analysis.score(result, protocol).per_seed
    reproduced = round(float(measured.mean()), 2)
    reasons = marks(study, result)
    distinct = published is None or result.is_part or result.server_scored
    difference = None if distinct else round(reproduced - published, 2)
    interval = prediction_interval(measured) if not result.imported and len(measured) > 1 else None
    if reasons:
        verdict = ", ".join(reasons)
    elif published is None:
        verdict = ""
    elif result.imported:
        verdict = _verdict((reproduced - TOLERANCE, reproduced + TOLERANCE), published, paper)
    else:
        verdict = _verdict(interval, published, paper) if interval else "not judged: one seed"
    return Comparison(published, paper, reproduced, difference, interval, verdict)


def prediction_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval for one more training like these (n,): mean +- t * SD * sqrt(1 + 1/n), t with n - 1 degrees.

    The published number is one training too. An interval for the mean would shrink with every seed and in the end hold
    no single training.
    """
    number = len(values)
    half = stdtrit(number - 1, 0.975) * values.std(ddof=1) * np.sqrt(1 + 1 / number)
    return float(values.mean() - half), float(values.mean() + half)


def _verdict(interval: tuple[float, float], published: float, paper: float | None) -> str:
    def inside(number: float) -> bool:
        return interval[0] - 1e-9 <= number <= interval[1] + 1e-9  # two decimals are not exact in binary

    if inside(published):
        return "yes"
    return "of the paper's number only" if paper is not None and inside(paper) else "no"


def _score(scores: Scores | None, protocol: str) -> float | None:
    return None if scores is None else getattr(scores, protocol)
