"""A published number beside the one measured here, judged only where both mean the same (docs/published-rows.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.config.schema import Benchmark, PublishedScores
from pipeline.results.published import changed_keys

TOLERANCE = 0.1  # points: the deviation that the authors allow for another environment
SUBSET, SERVER = "subset: not comparable", "server"


@dataclass(frozen=True)
class PublishedComparison:
    """One protocol of one benchmark. Numbers in percent, with two decimals as the authors print them.

    difference: reproduced - published; None when the numbers do not mean the same. interval: of one more training, see
    `prediction_interval`. verdict: yes, no, of the paper's number only, or why there is none.
    """

    published: float | None
    paper: float | None  # the paper repository's number where it differs from the model zoo's
    reproduced: float
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str


def marks(file: Benchmark, ran: Benchmark, is_part: bool, server_scored: bool) -> list[str]:
    """Why a result is not the published row: a part of the data, a server's test set, another configuration.

    file: the benchmark as params/ has it; ran: as it was trained and tested.
    """
    found = [SUBSET] * is_part + [SERVER] * server_scored
    return found + [f"changed: `{key}`" for key in changed_keys(file, ran)]


def published_numbers(benchmark: Benchmark, protocol: str) -> tuple[float | None, float | None]:
    """(published, paper) in percent: the model zoo's number, and the paper's where it differs; or the only one."""
    zoo, paper = (_score(scores, protocol) for scores in (benchmark.published.model_zoo, benchmark.published.paper))
    if zoo is None:
        return paper, None
    return zoo, paper if paper != zoo else None


def compare(
    file: Benchmark, protocol: str, measured: NDArray[np.float64], imported: bool, found: list[str]
) -> PublishedComparison:
    """measured: mIoU in percent of each seed (S,). found: see `marks`.

    An import is judged by TOLERANCE, a training by the prediction interval of its seeds.
    """
    published, paper = published_numbers(file, protocol)
    reproduced = round(float(measured.mean()), 2)
    incomparable = published is None or SUBSET in found or SERVER in found
    difference = None if incomparable else round(reproduced - published, 2)
    interval = prediction_interval(measured) if not imported and len(measured) > 1 else None
    if found:
        verdict = ", ".join(found)
    elif published is None:
        verdict = ""
    elif imported:
        verdict = _verdict((reproduced - TOLERANCE, reproduced + TOLERANCE), published, paper)
    else:
        verdict = _verdict(interval, published, paper) if interval else "not judged: one seed"
    return PublishedComparison(published, paper, reproduced, difference, interval, verdict)


def prediction_interval(values: NDArray[np.float64], ran: int = 1, level: float = 0.95) -> tuple[float, float]:
    """Interval for the mean of `ran` more trainings like these (n,): mean +- t * SD * sqrt(1/n + 1/ran), n - 1 degrees.

    An interval for the mean alone would shrink with every seed until no further training were inside.
    """
    number = len(values)
    half = stdtrit(number - 1, (1 + level) / 2) * values.std(ddof=1) * np.sqrt(1 / number + 1 / ran)
    return float(values.mean() - half), float(values.mean() + half)


def _verdict(interval: tuple[float, float], published: float, paper: float | None) -> str:
    def inside(number: float) -> bool:
        return interval[0] - 1e-9 <= number <= interval[1] + 1e-9  # two decimals are not exact in binary

    if inside(published):
        return "yes"
    return "of the paper's number only" if paper is not None and inside(paper) else "no"


def _score(scores: PublishedScores | None, protocol: str) -> float | None:
    return None if scores is None else getattr(scores, protocol)
