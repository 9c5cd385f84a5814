"""Unpacking archives: only plain files inside the target, all of them or none."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.failing import ended, files_up_to

from pipeline.errors import PipelineError
from pipeline.files.archive import safe_extract


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tar_with(path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as stream:
        for info, data in members:
            info.size = len(data)
            stream.addfile(info, io.BytesIO(data))


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("member")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_tar_is_unpacked(tmp_path, mode):
    tar_with(tmp_path / "a.tar", (tarfile.TarInfo("top/one"), b"1"), (tarfile.TarInfo("top/two"), b"22"), mode=mode)
    safe_extract(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out" / "top" / "two").read_bytes() == b"22"
    assert names(tmp_path) == ["a.tar", "out"]


def test_zip_is_unpacked_and_replaces_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").touch()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("top/one", b"1" * 1000)
    safe_extract(tmp_path / "a.zip", tmp_path / "out")
    assert names(tmp_path / "out") == ["top"]


@pytest.mark.parametrize(
    "info",
    [
        tarfile.TarInfo("../escape"),
        tarfile.TarInfo("/tmp/escape"),
        tarfile.TarInfo("..\\escape"),
        tarfile.TarInfo("C:\\escape"),
        special(tarfile.SYMTYPE, "/etc"),
        special(tarfile.LNKTYPE, "other"),
        special(tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_dangerous_tar_members_are_refused(tmp_path, info):
    tar_with(tmp_path / "a.tar.gz", (tarfile.TarInfo("good"), b"1"), (info, b""))
    with pytest.raises(PipelineError, match="refused"):
        safe_extract(tmp_path / "a.tar.gz", tmp_path / "out")
    assert names(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize(
    ("name", "attributes", "problem"),
    [("../escape", 0, "outside the target"), ("/tmp/escape", 0, "outside the target"), ("link", 0o120777, "a link")],
)
def test_dangerous_zip_members_are_refused(tmp_path, name, attributes, problem):
    info = zipfile.ZipInfo(name)
    info.external_attr = attributes << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as stream:
        stream.writestr(info, b"1")
    with pytest.raises(PipelineError, match=problem):
        safe_extract(tmp_path / "a.zip", tmp_path / "out")
    assert names(tmp_path) == ["a.zip"]


def test_a_full_disk_while_unpacking_names_the_file_and_leaves_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as stream:
        stream.writestr("top/one", b"1" * 1000)
    stopped = ended(lambda: safe_extract(tmp_path / "a.zip", tmp_path / "out"), files_up_to(500))
    assert f"error: {tmp_path}/out.part/top/one: File too large" in stopped.said
    assert names(tmp_path) == ["a.zip", "out"]


def test_encrypted_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as stream:
        stream.writestr("secret", b"1")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    flags = data.index(b"PK\x01\x02") + 8  # general purpose flags of the central directory's entry
    data[flags : flags + 2] = struct.pack("<H", 1)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(PipelineError, match="encrypted"):
        safe_extract(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_archives_are_refused(tmp_path, kind, kept):
    path, noise = tmp_path / "archive", os.urandom(200_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as stream:
            stream.writestr("one", noise)
    else:
        tar_with(path, (tarfile.TarInfo("one"), noise), mode=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(PipelineError, match=r"truncated|cut off"):
        safe_extract(path, tmp_path / "out")
    assert names(tmp_path) == ["archive"]


def test_a_damaged_zip_member_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as stream:
        stream.writestr("one", b"A" * 1000)
    data = (tmp_path / "a.zip").read_bytes().replace(b"AAAA", b"AAAB", 1)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(PipelineError, match="damaged"):
        safe_extract(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_in_a_compression_that_python_lacks_names_the_remedy(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("one", b"1" * 1000)
    deflated, deflate64 = struct.pack("<H", 8), struct.pack("<H", 9)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for place in (8, data.index(b"PK\x01\x02") + 10):  # the method in the file's header and in the directory
        assert data[place : place + 2] == deflated
        data[place : place + 2] = deflate64
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(PipelineError, match=r"a\.zip: .*not supported.*; unpack it by other means and name the folder"):
        safe_extract(tmp_path / "a.zip", tmp_path / "out")
