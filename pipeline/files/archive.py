"""Unpack an archive from the internet without letting it write anywhere else."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm import tqdm

from pipeline.errors import PipelineError
from pipeline.files.storage import naming

_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def safe_extract(archive: Path, target: Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) into `target`, replacing it only when everything is unpacked.

    Only plain files are written, with default permissions. Raises PipelineError for a member that would leave `target`
    (absolute, `..`), a link, a device, an encrypted member, a truncated or damaged archive, or another format.
    """
    temporary = target.with_name(f"{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _unpack(archive, temporary)
    except _DAMAGE as error:
        shutil.rmtree(temporary)
        raise PipelineError(f"{archive}: truncated or damaged ({error}); delete it and fetch it again") from error
    except BaseException:
        shutil.rmtree(temporary)
        raise
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as stream:
            _write(archive, list(_zip_members(archive, stream)), folder)
    elif _is_tar(archive):
        with tarfile.open(archive) as stream:
            _write(archive, list(_tar_members(archive, stream)), folder)
    else:
        raise PipelineError(
            f"{archive}: no zip or tar archive, or cut off before its end; delete it and fetch it again"
        )


def _is_tar(archive: Path) -> bool:
    try:
        return tarfile.is_tarfile(archive)
    except (EOFError, zlib.error, lzma.LZMAError):
        return True  # compressed, and damaged near its beginning


def _zip_members(archive: Path, stream: zipfile.ZipFile) -> Iterator[_Member]:
    for info in stream.infolist():
        if info.flag_bits & 1:
            raise PipelineError(f"{archive}: {info.filename}: encrypted; unpack it yourself and name the folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise PipelineError(f"{archive}: {info.filename}: a link, refused")
        _check_name(archive, info.filename)
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, lambda info=info: stream.open(info))


def _tar_members(archive: Path, stream: tarfile.TarFile) -> Iterator[_Member]:
    for info in stream:
        if not (info.isfile() or info.isdir()):
            kind = "a link" if info.issym() or info.islnk() else "neither file nor folder"
            raise PipelineError(f"{archive}: {info.name}: {kind}, refused")
        _check_name(archive, info.name)
        if info.isfile():
            yield _Member(info.name, info.size, lambda info=info: stream.extractfile(info))


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise PipelineError(f"{archive}: {name}: would be written outside the target folder, refused")


def _write(archive: Path, members: list[_Member], folder: Path) -> None:
    total = sum(member.size for member in members)
    with tqdm(total=total, desc=f"unpack {archive.name}", unit="B", unit_scale=True, disable=None) as bar:
        for member in members:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, naming(path), path.open("wb") as out:
                shutil.copyfileobj(source, out)
            if path.stat().st_size != member.size:
                raise EOFError(f"{member.name} ends after {path.stat().st_size} of {member.size} bytes")
            bar.update(member.size)
