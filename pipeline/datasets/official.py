"""Find a dataset in its official folders or archives, at any place in the source.

Nothing large is copied: archives are unpacked into the raw store once, a local folder is used in place. The store gets
symbolic links with the official names, so that a dataset module reads one layout. Digests of the store are computed
through the links: when the stage `download` runs, it notices changes in the local folder. DVC does not watch that one.
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
_DEPTH = 3  # levels of folders below the source that are searched


class OfficialSource:
    """A folder that holds the dataset or its official archives, or one archive of any name.

    `archives` are official file names. Archives with these names, in the folder or inside another archive, are unpacked
    one by one, only while something is not found without them. If `path` is None, the archive at `url` is downloaded
    into the raw store. Raises PipelineError ending in `remedy`.
    """

    def __init__(
        self,
        dataset: str,
        raw_dir: Path,
        path: Path | str | None,
        archives: Sequence[str],
        remedy: str,
        url: str | None = None,
    ) -> None:
        self.dataset, self.raw_dir, self.remedy = dataset, raw_dir, remedy
        self.path = self._download(url) if path is None else Path(path).expanduser()
        self._archives = archives
        self._roots: list[Path] = []
        self._packed: list[Path] = []
        if not self.path.exists():  # before anything is removed: the archive that was unpacked here may be gone
            raise PipelineError(f"params.yaml: sources.{dataset}: {path}: no such folder or archive. {remedy}")
        shutil.rmtree(raw_dir / _UNPACKED, ignore_errors=True)
        if self.path.resolve() != raw_dir.resolve():  # otherwise the links may be the user's own
            for old in raw_dir.iterdir():
                if old.is_symlink():
                    old.unlink()
        if self.path.is_dir():
            self._add(self.path)
        else:
            self._packed.append(self.path)

    def holding(self, *names: str) -> Path | None:
        """The highest folder that contains all of `names` (files, folders or relative paths), or None."""
        searched = 0
        while True:
            for root in self._roots[searched:]:
                for folder in _folders(root):
                    if all((folder / name).exists() for name in names):
                        return folder
            searched = len(self._roots)
            if not self._packed:
                return None
            self._packed.sort(key=lambda archive: not archive.name.startswith(names[0]))  # likely ones first
            archive = self._packed.pop(0)
            target = self.raw_dir / _UNPACKED / f"{searched}-{archive.name.split('.')[0]}"
            target.parent.mkdir(parents=True, exist_ok=True)
            safe_extract(archive, target)
            self._add(target)

    def link(self, name: str, target: Path) -> None:
        """Link `target` as `name` into the raw store."""
        link = self.raw_dir / name
        if not link.exists():
            link.unlink(missing_ok=True)  # a dangling link
            real, store = target.resolve(), self.raw_dir.resolve()
            project = self.raw_dir.absolute().parents[2].resolve()  # the store is data/raw/NAME
            # What is moved or copied together is linked relatively, so that the link stays right.
            together = any(real.is_relative_to(place) and store.is_relative_to(place) for place in (store, project))
            link.symlink_to(os.path.relpath(real, store) if together else real)
        elif link.resolve() != target.resolve():
            raise PipelineError(f"{link}: in the way of a link to {target}; move it elsewhere and run again")

    def fail(self, problem: str) -> PipelineError:
        """The error for a source in which something is missing or wrong."""
        return PipelineError(f"{self.dataset}: {self.path}: {problem}. {self.remedy}")

    def _download(self, url: str | None) -> Path:
        if url is None:
            raise PipelineError(f"{self.dataset}: cannot be downloaded automatically. {self.remedy}")
        archive = self.raw_dir / url.rsplit("/", 1)[1]
        try:
            fetch_file(url, archive)  # no digest is published; unpacking checks the CRCs
        except PipelineError as error:
            raise PipelineError(f"{self.dataset}: {error}\n{self.remedy}") from error
        return archive

    def _add(self, root: Path) -> None:
        self._roots.append(root)
        for folder in _folders(root):
            self._packed += [folder / name for name in self._archives if (folder / name).is_file()]


def file_stems(folder: Path, ending: str) -> set[str]:
    """Names of the files in `folder` that end in `ending`, without it; empty if there is no such folder."""
    return {path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}")}


def listed_ids(path: Path) -> list[str]:
    """The lines of an id list without blank ones; empty if there is no such file. Raises PipelineError if not UTF-8."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 ({error.reason}); save the list as UTF-8") from error
    if "\0" in text:  # UTF-16 without a byte-order mark
        raise PipelineError(f"{path}: not UTF-8 (it has NUL bytes); save the list as UTF-8")
    text = text.replace("\ufeff", "")  # byte-order marks, with which some editors begin a file; several in joined ones
    return [line.strip() for line in text.splitlines() if line.strip()]


def _folders(root: Path) -> list[Path]:
    """`root` and the folders below it, breadth first, each level sorted by name."""
    found, level = [root], [root]
    for _ in range(_DEPTH):
        level = [child for folder in level for child in _subfolders(folder)]
        found += level
    return found


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except PermissionError:
        return []  # such as lost+found
    return [folder / name for name in sorted(names) if not name.startswith((".", "__MACOSX"))]
