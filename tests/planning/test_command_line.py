"""Options of `python -m pipeline` are checked before anything is loaded."""

from __future__ import annotations

import pytest

from pipeline import __main__

_PREDICT = "predict --model tiny/0 --images . --out out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{_PREDICT} --batch=0", "--batch: expected a positive integer, found '0'"),
        (f"{_PREDICT} --batch=many", "--batch: expected a positive integer, found 'many'"),
        ("study camvid --size small --at-most=-1", "--at-most: expected a positive integer, found '-1'"),
        ("reference --seeds=-1", "--seeds: expected a seed, 0 or more, found '-1'"),
    ],
)
def test_a_number_that_is_out_of_range_is_an_error(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        __main__.main(arguments.split())
    assert message in capsys.readouterr().err


def test_the_size_of_no_study_is_an_error() -> None:
    with pytest.raises(SystemExit, match="--size small: names the size of a study"):
        __main__.main(["verify", "--size", "small"])
