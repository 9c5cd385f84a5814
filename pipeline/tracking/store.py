"""Where MLflow keeps its runs: one SQLite database and one artifact folder at the repository root.

Both are named absolutely, so runs land in the same place from any folder, and `mlflow ui` at the root, without flags,
shows every one of them. An experiment is a dataset: runs in one table are comparable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.files.locks import exclusive
from pipeline.layout import Layout

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI_VARIABLE = "MLFLOW_TRACKING_URI"
# Defaults of MLflow that do not suit a training job; a value set by the user stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's 7 retries hold up a training for minutes when a server is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
}


@dataclass(frozen=True)
class Store:
    """An open tracking store."""

    uri: str
    home: Path  # folder that holds mlflow.db and mlartifacts
    client: MlflowClient

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process of this machine at a time: for look-ups that create what they do not find."""
        with exclusive(_lock_name(self.home)):
            yield

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, created on first use. Call it under `lock`."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return self.client.create_experiment(name, artifact_location=self._artifact_location(name))
        if found.lifecycle_stage == "deleted":
            raise PipelineError(
                f"MLflow experiment {name!r} is in the trash; "
                f"bring it back with `mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        return found.experiment_id

    def _artifact_location(self, name: str) -> str | None:
        """A server decides by itself where artifacts go; a database needs to be told."""
        if self.uri.startswith(("http://", "https://", "databricks")):
            return None
        return (self.home / "mlartifacts" / name).as_uri()


def load_mlflow() -> ModuleType:
    """The mlflow package, imported when first needed (it takes seconds) and kept from calling home."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError as error:
        raise PipelineError(
            f"mlflow cannot be imported ({error}): install requirements.lock, "
            "or set `runtime.mlflow: false` in params.yaml to run without tracking"
        ) from error
    return mlflow


def store_home(root: Path) -> Path:
    """The repository, also in a copy of it that DVC made for an experiment."""
    return Layout(root).home.resolve()


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI when set, else the database `mlflow.db` of the repository."""
    return os.environ.get(_URI_VARIABLE) or f"sqlite:///{store_home(root) / 'mlflow.db'}"


@contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """The tracking store of `root`, created when absent; inside the block MLflow's own functions use it too.

    Raises PipelineError when it cannot be reached, before any work is lost on it.
    """
    mlflow = load_mlflow()
    uri, home = tracking_uri(root), store_home(root)
    before = os.environ.get(_URI_VARIABLE)
    try:
        # Opening migrates a fresh database, which fails when two processes do it at once.
        with exclusive(_lock_name(home)), explained(uri):
            client = mlflow.MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        mlflow.set_tracking_uri(uri)
        yield Store(uri, home, client)
    finally:
        # `set_tracking_uri` also sets the variable, which would then outrank the next root.
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[_URI_VARIABLE] = before


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn whatever goes wrong with the store at `uri` into a PipelineError that says what to do."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # MLflow lets through whatever its database or HTTP library raises
        message = (
            f"MLflow store {uri} cannot be used: {error}\nStart the server or repair the database, "
            f"unset {_URI_VARIABLE} to use the repository's own, or set `runtime.mlflow: false` in params.yaml"
        )
        raise PipelineError(without_password(message)) from error


def _lock_name(home: Path) -> Path:
    return home / "mlartifacts" / "store"  # the lock file lies beside it, in a folder that git ignores


def without_password(text: str) -> str:
    """`text` with the user part of addresses starred out: it goes to terminals and logs."""
    return re.sub(r"//[^@/\s]*@", "//***@", text)
