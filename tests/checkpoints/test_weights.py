"""Weight files: downloaded from the first address that has them, recorded once, verified at every use."""

from __future__ import annotations

import hashlib
import http.server
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.local_server import answering

from pipeline.checkpoints.download import download_weights, generation
from pipeline.checkpoints.imagenet import IMAGENET_FILES, imagenet_urls
from pipeline.checkpoints.planned import PlannedWeights, WeightFile, downloaded_weights
from pipeline.errors import PipelineError
from pipeline.layout import Layout

PAPER, ZOO = "/download/ssseg_memorynet/row.pth", "/download/ssseg_mcibi/mcibi_row.pth"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    with answering(running):
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


def row(server: Server, file: str | None = None) -> dict[str, PlannedWeights]:
    return {"row": PlannedWeights("row", (server.url(PAPER), server.url(ZOO)), file)}


def fetch(planned: dict[str, PlannedWeights], layout: Layout) -> WeightFile:
    download_weights(planned, layout)
    return downloaded_weights(layout)["row"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lock(layout: Layout) -> dict[str, dict[str, object]]:
    return json.loads(layout.weights_lock.read_text())


def test_the_file_of_the_paper_is_preferred_recorded_and_downloaded_once(server: Server, layout: Layout) -> None:
    server.files = {PAPER: b"paper", ZOO: b"zoo"}
    file = fetch(row(server), layout)
    path = "data/raw/weights/ssseg_memorynet/row.pth"
    assert file == WeightFile(path, server.url(PAPER), 5, sha256(b"paper"), "paper")
    assert (layout.root / path).read_bytes() == b"paper"
    assert lock(layout) == {"row": {"url": server.url(PAPER), "bytes": 5, "sha256": sha256(b"paper")}}
    assert fetch(row(server), layout) == file  # verified without the network
    assert server.asked == [PAPER]


def test_a_missing_file_of_the_paper_falls_back_to_the_model_zoo_with_a_message(
    server: Server, layout: Layout, capsys
) -> None:
    server.files = {ZOO: b"zoo"}
    file = fetch(row(server), layout)
    assert (file.generation, file.sha256) == ("model_zoo", sha256(b"zoo"))
    said = capsys.readouterr().out
    assert f"{server.url(PAPER)}: cannot download: the server answered 404" in said
    assert f"trying {server.url(ZOO)}" in said


def test_a_failure_other_than_not_found_does_not_change_the_generation(server: Server, layout: Layout) -> None:
    server.files = {ZOO: b"zoo"}
    planned = {"row": PlannedWeights("row", ("ftp://nowhere/row.pth", server.url(ZOO)), None)}
    with pytest.raises(PipelineError, match=r"ftp://nowhere(?s:.*)weights: \{row: PATH\}"):
        download_weights(planned, layout)
    assert server.asked == []


def test_an_address_that_is_gone_everywhere_names_all_of_them_and_the_remedy(server: Server, layout: Layout) -> None:
    with pytest.raises(PipelineError, match=r"404(?s:.*)weights: \{row: PATH\}") as caught:
        download_weights(row(server), layout)
    assert server.url(PAPER) in str(caught.value)
    assert server.url(ZOO) in str(caught.value)
    assert not layout.weights_lock.exists()


def test_the_recorded_address_comes_first_on_another_machine(server: Server, layout: Layout, tmp_path: Path) -> None:
    server.files = {ZOO: b"zoo"}
    fetch(row(server), layout)
    other = Layout(tmp_path / "other")
    other.root.mkdir()
    other.weights_lock.write_text(layout.weights_lock.read_text())
    server.files[PAPER] = b"paper is back"
    assert fetch(row(server), other).generation == "model_zoo"


def test_a_damaged_file_is_an_error_with_both_digests_and_the_remedy(server: Server, layout: Layout) -> None:
    server.files = {PAPER: b"paper"}
    file = fetch(row(server), layout)
    (layout.root / file.path).write_bytes(b"dead")
    with pytest.raises(PipelineError, match=r"Delete the file(?s:.*)remove the entry 'row'") as caught:
        fetch(row(server), layout)
    assert sha256(b"dead") in str(caught.value)
    assert sha256(b"paper") in str(caught.value)


def test_another_file_at_the_recorded_address_is_refused_and_not_kept(server: Server, layout: Layout) -> None:
    server.files = {PAPER: b"paper"}
    file = fetch(row(server), layout)
    (layout.root / file.path).unlink()
    server.files[PAPER] = b"replaced"
    with pytest.raises(PipelineError, match=sha256(b"replaced")):
        fetch(row(server), layout)
    assert not (layout.root / file.path).exists()
    assert lock(layout)["row"]["sha256"] == sha256(b"paper")


def test_new_addresses_do_not_inherit_the_record_of_the_old_ones(server: Server, layout: Layout) -> None:
    server.files = {PAPER: b"paper", "/other/ssseg_x/row.pth": b"new"}
    fetch(row(server), layout)
    moved = {"row": PlannedWeights("row", (server.url("/other/ssseg_x/row.pth"),), None)}
    with pytest.raises(PipelineError, match="none of its addresses now; remove the entry 'row'"):
        fetch(moved, layout)


def test_the_hex_digits_in_a_file_name_must_begin_its_sha256(server: Server, layout: Layout) -> None:
    good, bad = f"/a/net-{sha256(b'net')[:8]}.pth", "/a/net-00000000.pth"
    server.files = {good: b"net", bad: b"net"}
    assert fetch({"row": PlannedWeights("net", (server.url(good),), None)}, layout).bytes == 3
    with pytest.raises(PipelineError, match=f"sha256 is {sha256(b'net')}, but by its name it begins with 00000000"):
        fetch({"row": PlannedWeights("other", (server.url(bad),), None)}, layout)
    assert list(lock(layout)) == ["net"]


def test_one_file_serves_all_benchmarks_that_start_from_it(server: Server, layout: Layout) -> None:
    server.files = {"/a/net.pth": b"net"}
    weights = PlannedWeights("net", (server.url("/a/net.pth"),), None)
    download_weights({"one": weights, "two": weights}, layout)
    found = downloaded_weights(layout)
    assert sorted(found) == ["one", "two"]
    assert found["one"] == found["two"]
    assert server.asked == ["/a/net.pth"]


def test_a_local_file_is_used_in_place_and_has_to_be_that_of_a_recorded_download(
    server: Server, layout: Layout, tmp_path: Path
) -> None:
    mine = tmp_path / "row.pth"
    mine.write_bytes(b"mine")
    assert fetch(row(server, str(mine)), layout) == WeightFile(str(mine), None, 4, sha256(b"mine"), "local")
    assert server.asked == []
    assert not layout.weights_lock.exists()
    server.files = {PAPER: b"paper"}
    fetch(row(server), layout)
    with pytest.raises(PipelineError, match=sha256(b"paper")):
        fetch(row(server, str(mine)), layout)
    with pytest.raises(PipelineError, match=r"params.yaml: weights.row: .*/absent.pth: no such file"):
        fetch(row(server, "absent.pth"), layout)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("ssseg_memorynet", "paper"), ("ssseg_mcibi", "model_zoo"), ("ssseg_upernet", "model_zoo"), ("mine", "local")],
)
def test_the_release_tag_determines_the_generation(tag: str, expected: str) -> None:
    assert generation(f"https://github.com/SegmentationBLWX/modelstore/releases/download/{tag}/file.pth") == expected


def test_every_imagenet_file_carries_its_digits_and_has_a_second_address() -> None:
    digits = {"2cccc1ad", "e67eebb6", "f3b931b2", "d2186c55", "b3be5167"}
    files = {name: imagenet_urls(name)[0].removesuffix(".pth") for name in IMAGENET_FILES if name != "swin_large"}
    assert {file.rpartition("-")[2] for file in files.values()} == digits  # Microsoft's file carries none
    for name in IMAGENET_FILES:
        first, second = imagenet_urls(name)
        assert first.rpartition("/")[2] == second.rpartition("/")[2]


def test_an_unknown_imagenet_name_suggests_the_nearest() -> None:
    with pytest.raises(PipelineError, match="did you mean `resnet50_v1c`"):
        imagenet_urls("resnet50_v1d")
