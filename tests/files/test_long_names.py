"""Temporary files beside files with very long names."""

from __future__ import annotations

from pathlib import Path

from pipeline.files.storage import new_file, replacing


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
