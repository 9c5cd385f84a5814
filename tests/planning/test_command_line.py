"""Options of `python -m pipeline` are checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import __main__


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_that_is_not_a_positive_integer_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["predict", "--model", "tiny/0", "--images", ".", "--out", str(tmp_path), f"--batch={size}"])
    assert f"argument --batch: expected a positive integer, found '{size}'" in capsys.readouterr().err
