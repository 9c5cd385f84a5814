"""Points of curves: how they are named, sent in batches, and which of them a run already has."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECTIONS = ("train/", "validation/")  # the UI groups by the part before the slash
_BATCH = 1000  # MLflow's limit per request
_FLUSH_SECONDS = 5.0  # a request takes about 10 ms: 0.2 % of the time
_FIRST_PAUSE = 60.0  # seconds without live curves after a failure; doubles

Point = tuple[str, int, float]  # name, step (iterations done), value


class LiveCurves:
    """Buffers points and sends them every few seconds, so that logging costs the training next to nothing.

    A store that fails loses the points at hand and is left alone for a while; the complete curves are in the stage's
    CSV files and `missing_points` finds what to add at the end. `on_failure` is called with every error.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, known: dict[str, set[int]], on_failure: Callable[[Exception], None]
    ) -> None:
        self._client, self._run_id, self._known, self._on_failure = client, run_id, known, on_failure
        self._points: list[tuple[Point, int]] = []
        self._due = 0.0  # the first point is shown at once
        self._pause = _FIRST_PAUSE

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values at `step`. Points that the run has from before an interruption are left out."""
        now = int(time.time() * 1000)
        points = ((name, step, float(value)) for name, value in values.items())
        self._points += [(point, now) for point in points if step not in self._known.get(point[0], ())]
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        self._due = time.monotonic() + _FLUSH_SECONDS
        points, self._points = self._points, []
        try:
            send_points(self._client, self._run_id, points)
        except Exception as error:  # the training must outlive whatever database and HTTP libraries raise
            self._due = time.monotonic() + self._pause
            self._pause *= 2
            self._on_failure(error)


def send_points(client: MlflowClient, run_id: str, points: Iterable[tuple[Point, int]]) -> None:
    """Log (point, time in ms) pairs in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    metrics = [Metric(name, value, stamp, step) for (name, step, value), stamp in points]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def logged_steps(client: MlflowClient, run_id: str) -> dict[str, set[int]]:
    """Steps of every curve that a run has."""
    names = [name for name in client.get_run(run_id).data.metrics if name.startswith(SECTIONS)]
    return {name: {point.step for point in client.get_metric_history(run_id, name)} for name in names}


def read_curves(folder: Path) -> list[Point]:
    """All points of `history.csv` and `validation.csv`, named as the training loop names them; empty cells left out."""
    points: list[Point] = []
    for section, file, not_curves in (
        ("train/", "history.csv", {"iteration"}),
        ("validation/", "validation.csv", {"iteration", "epoch"}),
    ):
        table = pd.read_csv(folder / file)
        for row in table.to_dict("records"):
            step = int(row["iteration"])
            points += [
                (section + str(name), step, float(value))
                for name, value in row.items()
                if name not in not_curves and not math.isnan(value)
            ]
    return points
