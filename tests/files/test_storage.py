"""Writing files: whole or not at all, side by side, and never silently to a full disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import disk_problem
from pipeline.files.storage import new_file, replacing, write_png


def test_files_whose_long_names_start_alike_are_written_side_by_side(tmp_path: Path) -> None:
    paths = [tmp_path / f"{'n' * 250}{i}.png" for i in range(2)]
    with replacing(paths[0]) as one, replacing(paths[1]) as two:
        one.write_bytes(b"1")
        two.write_bytes(b"2")
        assert all(".part" in path.name for path in tmp_path.iterdir())
    assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    with new_file(paths[0]) as first, new_file(paths[1]) as second:
        first.write(b"3")
        second.write(b"4")
    assert [path.read_bytes() for path in paths] == [b"3", b"4"]


def test_writing_to_a_full_device_is_never_silent(tmp_path: Path) -> None:
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_png(tmp_path / "full.png", np.zeros((4, 4), np.uint8))
    assert "full.png: No space left on device; free some space there" in disk_problem(caught.value)


def test_a_file_that_could_not_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "file") as stream:
        stream.write(b"new")
        raise ZeroDivisionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
