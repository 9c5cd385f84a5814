"""Downloading a file over HTTP: resumed, and never left incomplete under its name."""

from __future__ import annotations

import http.client
import http.server
import multiprocessing
import re
import ssl
import threading
import time
from pathlib import Path

import pytest
from helpers.failing import ended, files_up_to
from helpers.local_server import answering

from pipeline.errors import PipelineError
from pipeline.files.fetch import fetch_file

CONTENT = bytes(range(256)) * 5000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at every address; can ignore ranges, break off after some bytes, or answer with an error."""

    ranges = True
    break_after: int | None = None  # bytes of the first answer
    stall_after: int | None = None  # bytes of the first answer, which then waits
    errors = 0  # answers with 503 before it works

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str | None] = []  # Range header of each request
        self.stalled = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        if self.path == "/absent" or self.server.errors:
            self.server.errors = max(self.server.errors - 1, 0)
            self.send_error(404 if self.path == "/absent" else 503)
            return
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        if self.server.break_after is not None:
            body, self.server.break_after = body[: self.server.break_after], None
        if self.server.stall_after is not None:
            self.wfile.write(body[: self.server.stall_after])
            self.server.stall_after = None
            self.server.stalled.set()
            self.rfile.read(1)  # until the client is gone
            return
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server():
    running = Server()
    with answering(running):
        yield running


def test_a_file_arrives_whole_and_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        fetch_file(server.url, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT
    assert names(tmp_path / "deep") == ["file"]
    assert len(server.seen) == 1


def test_a_partial_file_is_continued(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    fetch_file(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.seen == ["bytes=1000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    fetch_file(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("partial", [CONTENT, CONTENT + b"more"], ids=["complete", "too long"])
def test_a_partial_file_that_cannot_be_continued_ends_as_the_whole_file(server, tmp_path, partial):
    (tmp_path / "file.part").write_bytes(partial)
    fetch_file(server.url, tmp_path / "file", pause=0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_dropped_connection_is_taken_up_again(server, tmp_path):
    server.break_after = 5000
    fetch_file(server.url, tmp_path / "file", pause=0)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.seen == [None, "bytes=5000-"]


def test_a_download_that_is_killed_goes_on_where_it_was(server, tmp_path):
    server.stall_after = 1_200_000
    work = multiprocessing.get_context("fork").Process(target=fetch_file, args=(server.url, tmp_path / "file"))
    work.start()
    server.stalled.wait(10)
    while not (tmp_path / "file.part").exists() or not (tmp_path / "file.part").stat().st_size:
        time.sleep(0.01)
    work.kill()
    work.join()
    assert names(tmp_path) == ["file.part"]
    kept = (tmp_path / "file.part").stat().st_size
    fetch_file(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.seen == [None, f"bytes={kept}-"]


def test_a_full_disk_is_named_at_once_and_the_download_goes_on_where_it_was(server, tmp_path):
    stopped = ended(lambda: fetch_file(server.url, tmp_path / "file"), files_up_to(500_000))
    assert stopped.status == 1
    assert f"error: {tmp_path}/file.part: File too large; raise the limit" in stopped.said
    assert names(tmp_path) == ["file.part"]
    fetch_file(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.seen == [None, "bytes=500000-"]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.errors = 2
    fetch_file(server.url, tmp_path / "file", pause=0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_broken_encryption_is_a_problem_of_the_connection_not_of_the_disk(server, tmp_path, monkeypatch):
    broken = ssl.SSLError(1, "bad record mac")  # 1 is also the system's "operation not permitted"
    answers = iter([broken, b""])

    def read(response, size):
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        return original(response, size)

    original = http.client.HTTPResponse.read
    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    fetch_file(server.url, tmp_path / "file", pause=0)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_a_missing_address_is_asked_once(server, tmp_path):
    with pytest.raises(PipelineError, match="404"):
        fetch_file(server.url.replace("file.bin", "absent"), tmp_path / "file")
    assert len(server.seen) == 1


def test_only_web_addresses_are_fetched(tmp_path):
    with pytest.raises(PipelineError, match="http"):
        fetch_file("file:///etc/hostname", tmp_path / "file")
