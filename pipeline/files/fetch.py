"""Download one file: resumable, atomic."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import PipelineError, disk_problem
from pipeline.files.storage import with_path

_ATTEMPTS = 4
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_NOT_FOUND = {404, 410}


class NotFoundError(PipelineError):
    """The server has no such file (404 or 410), so another address may be tried."""


def fetch_file(url: str, target: Path, pause: float = 1.0) -> None:
    """Download `url` to `target`; an existing `target` is kept, a `.part` beside it is continued.

    pause: seconds before the second attempt, doubled for each further one. `target` appears only when it has the length
    that the server announced. Raises PipelineError otherwise (NotFoundError when the server has no such file), and
    OSError when the disk refuses it.
    """
    if not url.startswith(("https://", "http://")):
        raise PipelineError(f"{url}: expected an http or https address")
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    for attempt in range(_ATTEMPTS):
        try:
            _continue(url, part)
            break
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and dropped connections
            if disk_problem(error) is not None:
                raise  # not a network problem
            code, reason = getattr(error, "code", None), getattr(error, "reason", error)
            if attempt == _ATTEMPTS - 1 or code not in (None, *_WORTH_RETRYING):
                answer = f"the server answered {code} {reason}" if code else reason
                kept = (
                    f"; {part.stat().st_size} bytes are kept in {part}, run again to continue" if part.exists() else ""
                )
                kind = NotFoundError if code in _NOT_FOUND else PipelineError
                raise kind(f"{url}: cannot download: {answer}{kept}") from None
        time.sleep(pause * 2**attempt)
    part.replace(target)


def _continue(url: str, part: Path) -> None:
    """Append the missing bytes to `part`, or start over when the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "mcibi-reproduction", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - fetch_file admits http and https only
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # already complete
        part.unlink()  # not a beginning of the server's file
        raise ConnectionError("the partial file does not belong to this address; starting over") from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server resumed at the wrong offset; starting over")
        have = have if resumed else 0
        announced = response.headers.get("Content-Length")
        total = None if announced is None else have + int(announced)
        with (
            with_path(part),
            part.open("ab" if resumed else "wb") as stream,
            tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while chunk := _read(response):
                stream.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except ssl.SSLError as error:  # its errno is OpenSSL's, not one of the disk
        raise ConnectionError(str(error)) from error
