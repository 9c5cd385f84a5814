"""User-facing errors, printed without a traceback."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_INTERRUPTED = 130  # exit status after Ctrl-C, by convention of shells

_OBSTACLE = "another file or folder is in the way; move it elsewhere"
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EACCES: "give yourself the permission",
    errno.EPERM: "give yourself the permission",
    errno.EROFS: "make this file system writable, or work in another place",
    errno.ENOTDIR: _OBSTACLE,
    errno.EISDIR: _OBSTACLE,
    errno.EEXIST: _OBSTACLE,
}


class PipelineError(Exception):
    """Something the user can correct; the message names the file or key, what was expected and the remedy."""


def disk_problem(error: BaseException) -> str | None:
    """Path, reason and remedy when this machine refuses a file (disk full, no permission, ...), else None.

    None also for a file that does not exist: that is a mistake in the program and keeps its traceback.
    """
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    path = error.filename2 or error.filename
    where = f"{path}: " if path else ""
    return (
        f"{where}{error.strerror}; {_REMEDIES[error.errno]}, then run the same command again: "
        "what was finished or saved is kept"
    )


def first_line(error: BaseException) -> str:
    """The first line of a library's error message; the kind of error when there is none."""
    return str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Exit with only a message after a PipelineError, a refused file or an interrupt; other errors keep a traceback.

    Inside the block SIGTERM and SIGHUP do what Ctrl-C does.
    """
    try:
        with _stoppable():
            yield
    except PipelineError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt as stopped:
        print(f"interrupted: {str(stopped) or 'run the same command again to resume'}", file=sys.stderr)
        sys.exit(_INTERRUPTED)


@contextmanager
def _stoppable() -> Iterator[None]:
    """What `kill`, `timeout` and a closed terminal send does what Ctrl-C does; under `nohup` SIGHUP stays ignored."""
    # A shell script starts `COMMAND &` with SIGINT ignored, so that `kill -INT` would do nothing.
    changes = [(signal.SIGINT, signal.SIG_IGN, signal.default_int_handler)]
    changes += [(number, signal.SIG_DFL, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)]
    previous = {
        number: signal.signal(number, handler)
        for number, before, handler in changes
        if signal.getsignal(number) == before
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)  # for whoever handles it at that moment: a training saves first
