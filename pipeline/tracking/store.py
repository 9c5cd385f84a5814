"""Where MLflow keeps its runs: one SQLite database and one artifact folder at the repository root.

Both have absolute addresses, so runs reach the same place from any folder, and `mlflow ui` at the root shows all of
them without flags. An experiment is a dataset: the runs in one table are comparable.
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
from urllib.parse import unquote

from pipeline.errors import PipelineError
from pipeline.files.locks import exclusive
from pipeline.layout import Layout
from pipeline.tracking.moved import FOLDER, adopt_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_RUN_VARIABLE = "MLFLOW_RUN_ID"  # of a surrounding tracker; `mlflow.start_run` would write into that run
# Defaults of MLflow that do not suit a training job; a value set by the user is kept.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's 7 retries delay a training by minutes when a server is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
}


@dataclass(frozen=True)
class Store:
    """An open tracking store."""

    uri: str
    folder: Path  # contains mlflow.db and mlartifacts
    client: MlflowClient

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process of this machine at a time: for look-ups that create what they do not find."""
        with exclusive(_lock_name(self.folder)):
            yield

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, created on first use. Call it under `lock`."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # A server chooses the place of artifacts itself; a database has to be given one.
            on_server = self.uri.startswith(("http://", "https://", "databricks"))
            location = None if on_server else (self.folder / FOLDER / name).as_uri()
            return self.client.create_experiment(name, artifact_location=location)
        if found.lifecycle_stage == "deleted":
            raise PipelineError(
                f"MLflow experiment {name!r} is deleted; "
                f"restore it with `mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        return found.experiment_id


def load_mlflow() -> ModuleType:
    """The mlflow package, imported when first needed (it takes seconds), with telemetry off."""
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


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI when set, else the database `mlflow.db` of the repository.

    Raises PipelineError where MLflow would look for that database in another folder.
    """
    if chosen := os.environ.get(_URI_VARIABLE):
        return chosen
    folder = _folder(root)
    # MLflow hands the address to SQLAlchemy, which decodes it, and takes its folder as it is: quoting cannot suit both.
    if "?" in str(folder) or unquote(str(folder)) != str(folder):
        raise PipelineError(
            f"{folder}: MLflow cannot have its database in a folder whose name has `?` or a code such as `%20`; rename "
            f"the folder, set {_URI_VARIABLE} to another store, or set `runtime.mlflow: false` in params.yaml"
        )
    return _own_uri(folder)


@contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """The tracking store of `root`, created when absent; inside the block MLflow's own functions use it too.

    A run that the environment names is left alone: every stage has its own run. Raises PipelineError when the
    store cannot be reached, before any work depends on it.
    """
    mlflow = load_mlflow()
    uri, folder = tracking_uri(root), _folder(root)
    before = os.environ.get(_URI_VARIABLE)
    surrounding = os.environ.pop(_RUN_VARIABLE, None)
    try:
        # Opening migrates a new database, which fails when two processes do it at once.
        with exclusive(_lock_name(folder)), explained(uri):
            _adopt_own_artifacts(uri, folder)
            client = mlflow.MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        mlflow.set_tracking_uri(uri)
        yield Store(uri, folder, client)
    finally:
        # `set_tracking_uri` also sets the variable, which would override the repository of the next root.
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[_URI_VARIABLE] = before
        if surrounding is not None:
            os.environ[_RUN_VARIABLE] = surrounding


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn any error of the store at `uri` into a PipelineError with the remedy."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # MLflow passes on the errors of its database and HTTP libraries
        message = (
            f"MLflow store {uri} cannot be used: {error}\nStart the server or repair the database, "
            f"unset {_URI_VARIABLE} to use the repository's own, or set `runtime.mlflow: false` in params.yaml"
        )
        raise PipelineError(without_password(message)) from error


def without_password(text: str) -> str:
    """`text` for terminals and logs, with asterisks for user and password in addresses."""
    return re.sub(r"//[^@/\s]*@", "//***@", text)


def _adopt_own_artifacts(uri: str, folder: Path) -> None:
    """After the repository was moved or copied; a store that the user chose is left alone."""
    database = folder / "mlflow.db"
    if uri != _own_uri(folder) or not database.exists():
        return
    for place in adopt_artifacts(database):
        print(f"MLflow: this repository was at {place} before; its runs now have their artifacts in {folder / FOLDER}")


def _own_uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def _folder(root: Path) -> Path:
    """The repository, also from within the copy of it that DVC makes for a queued experiment."""
    return Layout(root).home.resolve()


def _lock_name(folder: Path) -> Path:
    return folder / FOLDER / "store"  # the lock file is a sibling of this path, in a folder that git ignores
