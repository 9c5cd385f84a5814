"""What the person at the keyboard can put right, told in one line instead of a traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_INTERRUPTED = 130  # exit status of a program that Ctrl-C ended, by convention of shells

_OBSTACLE = "something else is there in place of the file or folder that is needed; move it elsewhere"
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EACCES: "give yourself the right to it",
    errno.EPERM: "give yourself the right to it",
    errno.EROFS: "make this file system writable, or work in another place",
    errno.ENOTDIR: _OBSTACLE,
    errno.EISDIR: _OBSTACLE,
    errno.EEXIST: _OBSTACLE,
}


class PipelineError(Exception):
    """Something the user can put right; the message names the file or key, what was expected and the remedy."""


def disk_problem(error: BaseException) -> str | None:
    """Path, reason and remedy when `error` says that this machine refuses a file (disk full, no right, ...), or None.

    None for every other error: a file that is not there, say, is a mistake of the program and keeps its traceback.
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
    """What an error of a library says, in one line; its kind when it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """End the program with a message alone for a PipelineError, a refused file or an interrupt.

    All other errors keep their traceback.
    """
    try:
        yield
    except PipelineError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt as stopped:
        print(f"interrupted: {stopped or 'run the same command again to go on'}", file=sys.stderr)
        sys.exit(_INTERRUPTED)
