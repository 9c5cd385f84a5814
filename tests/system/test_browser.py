"""The report and MLflow's pages in a real browser: what a person would see (`make check-browser`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Page, chromium, find_chromium
from helpers.fake_results import row, write_results
from helpers.page_checks import DESKTOP, page_problems
from helpers.project import ROOT, TINY
from helpers.tracking_files import track_both_stages, write_prepared
from helpers.tracking_server import free_port, wait_until_it_answers

from pipeline.config.parse import parse
from pipeline.config.schema import Benchmark, RuntimeConfig
from pipeline.config.study import load_plan
from pipeline.reporting.report import write_report, write_study_report
from pipeline.tracking.store import load_mlflow, tracking_uri

BROWSER = find_chromium()
OF_MLFLOW = (
    "/mlflow/users/current",  # who is logged in, which a server without accounts does not know
    "ResizeObserver loop completed with undelivered notifications",  # a chart that is drawn over two frames
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM to its path"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser's tab."""
    with chromium(str(BROWSER), tmp_path_factory.mktemp("browser") / "profile") as tab:
        yield tab


def trained_report(root: Path) -> Path:
    """Two frameworks with and without memory, two seeds each."""
    write_results(root)
    write_report(root, root / "reports")
    return root / "reports" / "report.html"


def imported_report(root: Path) -> Path:
    """A published row with 150 classes, and its baseline."""
    base = row("ade20k-base", "ade20k", memory=False)
    dataset = base.dataset.model_copy(update={"evaluation_split": "val"})
    pair = [base, row("ade20k-row", "ade20k", baseline="ade20k-base")]
    pair = [benchmark.model_copy(update={"dataset": dataset}) for benchmark in pair]
    write_results(root, seeds=(0,), images=8, benchmarks=pair)
    write_report(root, root / "reports")
    return root / "reports" / "report.html"


def study_report(root: Path) -> Path:
    """The committed study in its small size."""
    for name in ("studies", "params", "reports"):
        shutil.copytree(ROOT / name, root / name)
    return write_study_report(root, load_plan(root, "camvid", "small")) / "report.html"


@pytest.mark.parametrize("build", [trained_report, imported_report, study_report])
def test_a_report_is_filled_readable_and_within_reach_of_the_keyboard(
    page: Page, build: Callable[[Path], Path], tmp_path: Path
) -> None:
    assert page_problems(page, build(tmp_path)) == []


BAD_PAGE = """<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1">
<style>@media (prefers-color-scheme: dark) { p { color: #555; } } .bare:focus { outline: none; }</style>
<script>console.error("a broken script")</script>
<table><caption>Empty</caption><tbody></tbody></table>
<table><caption>Scores</caption><tbody><tr><th>fcn</th><td>nan</td><td></td></tr></tbody></table>
<img src="data:image/png;base64,AAAA" alt="">
<p>A paragraph.</p><small style="font-size: 9px">Small print.</small>
<a class="bare" href="#x">a link</a><a href="#y" tabindex="5">too early</a>
<div style="width: 1500px">wide</div>"""


def test_the_checks_find_what_is_wrong_with_a_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD_PAGE)
    found = page_problems(page, tmp_path / "bad.html")
    for expected in (
        "390 px, dark: console: a broken script",
        "390 px, dark: Empty: no rows",
        '390 px, light: Scores: "nan" in row',
        '390 px, light: Scores: "" in row',
        "1280 px, light: : not shown",
        "1280 px, light: data:image/png;base64,AAAA: no alternative text",
        "390 px, dark: the paper is not dark",
        "390 px, light: 9 px, 12 needed: Small print.",
        "390 px, light: Tab number 1 leads to element 2: too early",
        "390 px, light: the page is 15",
    ):
        assert any(problem.startswith(expected) for problem in found), (expected, found)


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose store holds the runs of two benchmarks."""
    root = tmp_path_factory.mktemp("tracked")
    write_prepared(root)
    runtime = RuntimeConfig(device="cpu")
    for name, memory in (("tiny-fcn", None), ("tiny-fcn-mcibi", {})):
        benchmark = parse(Benchmark, {"id": name, **TINY, "memory": memory}, name)
        track_both_stages(root, benchmark, 0, runtime)
    return root


@pytest.fixture(scope="module")
def interface(tracked: Path) -> Iterator[str]:
    """Address of `mlflow ui`, started at the root as the README says."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tracked / "ui.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tracked, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(address, tracked / "ui.log")
        yield address
    finally:
        os.killpg(server.pid, 15)  # its workers as well
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def runs(tracked: Path) -> dict[tuple[str, str], Any]:
    """The store's runs by benchmark and stage."""
    client = load_mlflow().MlflowClient(tracking_uri=tracking_uri(tracked))
    experiment = client.get_experiment_by_name("digits")
    return {(r.data.tags["benchmark"], r.data.tags["stage"]): r for r in client.search_runs([experiment.experiment_id])}


def test_mlflow_lists_one_parent_per_benchmark(page: Page, interface: str, runs: dict[tuple[str, str], Any]) -> None:
    parent = runs["tiny-fcn", "parent"]
    show(page, f"{interface}/#/experiments/{parent.info.experiment_id}/runs", "tiny-fcn-mcibi seed 0", "matching runs")
    names = page.evaluate(_LINKS.format(text="seed 0"))
    assert sorted(names) == ["tiny-fcn seed 0", "tiny-fcn-mcibi seed 0"]
    assert own_problems(page) == []


def test_mlflow_shows_the_scores_and_parameters_of_a_parent(
    page: Page, interface: str, runs: dict[tuple[str, str], Any]
) -> None:
    parent = runs["tiny-fcn-mcibi", "parent"]
    address = f"{interface}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    show(page, address, "miou_ms_flip", "0.6", "segmentor.framework", "fcn")
    assert own_problems(page) == []


def test_mlflow_draws_the_curves_of_a_training(page: Page, interface: str, runs: dict[tuple[str, str], Any]) -> None:
    train = runs["tiny-fcn", "train"]
    address = f"{interface}/#/experiments/{train.info.experiment_id}/runs/{train.info.run_id}/model-metrics"
    show(page, address, "train/loss")
    page.until("document.querySelectorAll('.scatterlayer .js-line').length > 0")
    assert own_problems(page) == []


_LINKS = "[...document.querySelectorAll('a')].map(a => a.innerText.trim()).filter(text => text.endsWith('{text}'))"


def show(page: Page, address: str, *words: str) -> None:
    """Open a page of MLflow and wait until it shows all `words`."""
    page.resize(*DESKTOP)
    page.prefer("light")
    page.open("about:blank")  # pages of one address that differ behind its # would not be loaded again
    page.open(address)
    for word in words:
        page.until(f"document.body.innerText.includes({json.dumps(word)})")


def own_problems(page: Page) -> list[str]:
    """Problems but for what MLflow's own pages always have."""
    return [problem for problem in page.problems if not any(known in problem for known in OF_MLFLOW)]
