"""What a module of the project imports, directly and through others, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from helpers.project import ROOT

OURS = ("pipeline", "stages")


def import_closure(file: str, stop: tuple[str, ...] = ()) -> set[str]:
    """Files that `file` needs to run, itself among them, as paths below the root.

    Imports inside functions count, those for type checkers alone do not. Files below a path of `stop` are left out,
    and its own imports are not followed.
    """
    found: set[str] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in found or path.startswith(stop):
            continue
        found.add(path)
        waiting += [target for module in _imported(ROOT / path) if (target := _file(module))]
    return found


def _imported(path: Path) -> Iterator[str]:
    """Dotted names of everything imported in `path`, and of the packages around it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _running(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] in OURS:
                yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def _file(module: str) -> str | None:
    path = module.replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None
