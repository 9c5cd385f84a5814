"""Addresses of artifacts in a repository that was moved or copied.

MLflow stores the places of artifacts as absolute addresses and has no command to change them. Without a repair a moved
repository writes to its old place again, and a copy writes into the original.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

FOLDER = "mlartifacts"
# Every column of MLflow's database that holds the address of a folder of artifacts.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def adopt_artifacts(database: Path) -> list[str]:
    """Point a repository's own database to the artifacts beside it; returns the places that it pointed to before.

    Only addresses below another `mlartifacts` change; those that a user chose otherwise stay. Nothing is copied: what
    was left at the old place is missing here. Call it while no other process opens the database.
    """
    here = (database.parent / FOLDER).as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return []  # a new database
        found = connection.execute(
            "SELECT name, artifact_location FROM experiments WHERE artifact_location LIKE 'file://%'"
        )
        places = {str(at).removesuffix(f"/{name}") for name, at in found if str(at).endswith(f"/{FOLDER}/{name}")}
        elsewhere = sorted(places - {here})
        for place in elsewhere:
            for table, column in _ADDRESSES:
                if table in tables:
                    # substr counts characters from 1; no LIKE, in which `_` and `%` of a folder's name mean others.
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 - names from above
                        (here, len(place) + 1, len(place) + 1, f"{place}/"),
                    )
    return [unquote(place.removeprefix("file://").removesuffix(f"/{FOLDER}")) for place in elsewhere]
