"""Take a dataset from its official folders and archives as they come, wherever in the source they lie.

Nothing large is copied. Archives are unpacked into the raw store, once; a local folder stays where it is. In both cases
the store then gets symbolic links with the official names, so that a dataset module reads one layout. The manifest of
the store is taken through the links: a change in the local folder is noticed like one in the store itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files.archive import safe_extract
from pipeline.files.fetch import fetch_file

_UNPACKED = "unpacked"  # in the raw store
_DEPTH = 3  # folders below the source that are searched


class OfficialSource:
    """A local folder that holds the dataset or its official archives, or one archive, of any name.

    `archives` are the official file names. Such archives in the folder, or inside another archive, are unpacked one
    after the other, and only while something is not found without them: first those that are named after it.
    """

    def __init__(self, dataset: str, raw_dir: Path, path: Path, archives: Sequence[str], remedy: str) -> None:
        self.dataset, self.raw_dir, self.path, self.remedy = dataset, raw_dir, path, remedy
        self._archives = archives
        self._roots: list[Path] = []
        self._packed: list[Path] = []
        shutil.rmtree(raw_dir / _UNPACKED, ignore_errors=True)
        if path.resolve() != raw_dir.resolve():  # else the links may be the user's own
            for old in raw_dir.iterdir():
                if old.is_symlink():
                    old.unlink()
        if path.is_dir():
            self._add(path)
        elif path.is_file():
            self._packed.append(path)
        else:
            raise PipelineError(f"params.yaml: sources.{dataset}: {path}: no such folder or archive. {remedy}")

    def holding(self, *names: str) -> Path | None:
        """The folder that has all of `names` (files, folders or paths in it); the highest one, or None."""
        looked_in = 0
        while True:
            for root in self._roots[looked_in:]:
                for folder in _folders(root):
                    if all((folder / name).exists() for name in names):
                        return folder
            looked_in = len(self._roots)
            if not self._packed:
                return None
            self._packed.sort(key=lambda archive: not archive.name.startswith(names[0]))  # stable
            self._unpack(self._packed.pop(0))

    def link(self, name: str, target: Path) -> Path:
        """Make `target` known as `name` in the raw store; return that path."""
        link = self.raw_dir / name
        if link.exists():
            if link.resolve() == target.resolve():
                return link
            raise PipelineError(f"{link}: in the way of a link to {target}; move it elsewhere and run again")
        link.unlink(missing_ok=True)  # a link to something that is gone
        inside = target.is_relative_to(self.raw_dir)
        link.symlink_to(os.path.relpath(target, self.raw_dir) if inside else target.resolve())
        return link

    def fail(self, problem: str) -> PipelineError:
        """The error for a source in which something is missing or wrong."""
        return PipelineError(f"{self.dataset}: {self.path}: {problem}. {self.remedy}")

    def _unpack(self, archive: Path) -> None:
        target = self.raw_dir / _UNPACKED / f"{len(self._roots)}-{archive.name.split('.')[0]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        safe_extract(archive, target)
        self._add(target)

    def _add(self, root: Path) -> None:
        self._roots.append(root)
        for folder in _folders(root):
            self._packed += [folder / name for name in self._archives if (folder / name).is_file()]


def fetched_archive(dataset: str, raw_dir: Path, url: str, remedy: str) -> Path:
    """The archive at `url`, downloaded into the raw store, where it stays. Raises PipelineError with the remedy."""
    archive = raw_dir / url.rsplit("/", 1)[1]
    try:
        fetch_file(url, archive, sha256=None, size=None)  # no digest is published; unpacking checks every file's CRC
    except PipelineError as error:
        raise PipelineError(f"{dataset}: {error}\n{remedy}") from error
    return archive


def file_stems(folder: Path, ending: str) -> set[str]:
    """Names of the files in `folder` that end with `ending`, without it; none when there is no such folder."""
    if not folder.is_dir():
        return set()
    names = os.listdir(folder)  # noqa: PTH208 - names alone: tens of thousands
    return {name.removesuffix(ending) for name in names if name.endswith(ending) and not name.startswith(".")}


def listed_ids(path: Path) -> list[str]:
    """The lines of an id list, without blank ones; none when there is no such list."""
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _folders(root: Path) -> list[Path]:
    """`root` and the folders below it, the highest first, each level in order of the names."""
    found, level = [root], [root]
    for _ in range(_DEPTH):
        level = [child for folder in level for child in _children(folder)]
        found += level
    return found


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except PermissionError:
        return []  # lost+found, say: nothing of ours
    return [folder / name for name in sorted(names) if not name.startswith((".", "__MACOSX"))]
