"""Unpack an archive from the internet without letting it write anywhere else."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from pipeline.errors import PipelineError
from pipeline.files.storage import with_path

_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


_Member = tuple[str, int, str | None, Callable[[], object]]  # name, size, why it is refused, extraction


def safe_extract(archive: Path, target: Path) -> None:
    """Unpack a zip or tar (plain, gz, bz2, xz) into `target`, replacing it only when everything is unpacked.

    Files get default permissions. Raises PipelineError for a member outside `target` (absolute, `..`), a link, a
    device, an encrypted member, a truncated or damaged archive, or another format.
    """
    temporary = target.with_name(f"{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _unpack(archive, temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    except NotImplementedError as error:  # such as Deflate64, in which Windows packs large files
        raise PipelineError(f"{archive}: {error}; unpack it by other means and name the folder") from error
    except _DAMAGE as error:
        raise PipelineError(f"{archive}: truncated or damaged ({error}); delete it and fetch it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as stream:
            members = [
                (info.filename, info.file_size, _zip_problem(info), partial(stream.extract, info, folder))
                for info in stream.infolist()
            ]
            _extract(archive, members, folder)
    elif _is_tar(archive):
        with tarfile.open(archive) as stream:
            extract = partial(stream.extract, path=folder, set_attrs=False, filter="data")
            members = [(info.name, info.size, _tar_problem(info), partial(extract, info)) for info in stream]
            _extract(archive, members, folder)
    else:
        raise PipelineError(f"{archive}: not a zip or tar archive, or cut off; delete it and fetch it again")


def _is_tar(archive: Path) -> bool:
    try:
        return tarfile.is_tarfile(archive)
    except (EOFError, zlib.error, lzma.LZMAError):
        return True  # compressed, and damaged near its beginning


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 1:
        return "is encrypted; unpack the archive by hand and use the folder"
    return "is a link" if stat.S_ISLNK(info.external_attr >> 16) else None


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    return None if info.isfile() or info.isdir() else "is neither a file nor a folder"


def _extract(archive: Path, members: list[_Member], folder: Path) -> None:
    for name, _, problem, _ in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
            problem = "would be written outside the target folder"
        if problem is not None:
            raise PipelineError(f"{archive}: refused, {name} {problem}")
    total = sum(size for _, size, _, _ in members)
    with tqdm(total=total, desc=f"unpack {archive.name}", unit="B", unit_scale=True, disable=None) as bar:
        for name, size, _, extract in members:
            with with_path(folder / name):
                extract()
            bar.update(size)
