"""README, CONTRIBUTING and docs/: their numbers, links, commands and code.

Numbers are compared with committed records: those of the default with `reports/reference`, those of the CamVid study
with its reports, those of speed, memory and coverage with `benchmarks/measured`, the published with the benchmarks.
"""

from __future__ import annotations

import json
import re
import runpy
import statistics
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.markdown import anchors, blocks, links, tables, without_code
from helpers.project import ROOT

from benchmarks import coverage
from pipeline.config import benchmark_ids, for_evaluation, load_benchmark, load_project
from pipeline.config.study import load_plan
from pipeline.reporting.words import p_value
from pipeline.results.reference import read_reference
from pipeline.results.statistics import Estimate, holm

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

# Words and phrases of the project's former private dialect.
AVOIDED = (
    *("told in one line", "anew", "hence", "stands twice", "is no device", "to be had", "takes its leave"),
    *("the road works", "for good", "METHOD", "spec/", "stands", "lies", "told", "at hand", "is no matter"),
)
AVOIDED_IN_PAGES = ("the one that", "PROTOCOL", "CHECKPOINTS")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text from a heading to the next one of the same level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"no section {heading!r}"
    return rest.partition("\n## ")[0]


def agrees(shown: str, value: float) -> bool:
    """Whether `value`, rounded to the decimals that are shown, is the number at the beginning of `shown`."""
    number = re.match(r"\d+(?:\.(\d+))?", shown)
    assert number is not None, shown
    return float(number[0]) == round(value, len(number[1] or ""))


# --- the README -------------------------------------------------------------------------------------------------------


def test_the_snippet_reads_and_updates_a_memory(tmp_path: Path) -> None:
    (snippet,) = (block.text for block in blocks(read("README.md")) if block.title == "own-model")
    assert len([line for line in snippet.splitlines() if line]) == 8
    torch.manual_seed(0)
    (tmp_path / "snippet.py").write_text(snippet, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "snippet.py"))
    assert names["augmented"].shape == names["representations"].shape
    assert (names["memory"].memory != 0).any(dim=-1).all()  # every class occurs in the labels


def test_the_table_of_the_default_is_that_of_its_reference_records() -> None:
    text = section(read("README.md"), "Install and run")
    (table,) = tables(text)
    chosen = load_project(ROOT)
    records = {name: read_reference(ROOT, name) for name in chosen.benchmarks}
    assert [row["benchmark"] for row in table.rows] == [*records, "difference"]
    keys, scores = {}, {}
    for name, record in records.items():
        frame = pd.DataFrame([{"seed": t.seed, **t.scores} for t in record.trainings])
        scores[name], keys[name] = frame, [t.key for t in record.trainings]
    before, after = scores.values()
    assert len({tuple(each) for each in keys.values()}) == 1  # paired, in the same order
    scores["difference"] = (after - before).assign(seed=after["seed"])
    for row in table.rows:
        frame = scores[row["benchmark"]]
        for protocol, column in (("single_scale", "single scale"), ("ms_flip", "ms+flip")):
            values = 100 * frame.groupby("seed")[protocol].mean()
            sign = "+" if row["benchmark"] == "difference" else ""
            assert row[column] == f"{values.mean():{sign}.2f} ± {values.std():.2f}".replace("-", "−")
        assert row["trainings"] == str(len(frame))
        assert row["seeds"] == str(frame["seed"].nunique())
    for record in records.values():
        assert record.benchmark == for_evaluation(load_benchmark(ROOT, record.name))
        assert {training.seed for training in record.trainings} >= {*range(5)}
        assert len({(training.kernels, training.threads) for training in record.trainings}) >= 2
        assert {f"`{training.commit[:7]}`" for training in record.trainings} <= set(re.findall(r"`\w{7}`", text))


def test_the_coverage_tables_are_those_of_the_recorded_simulation() -> None:
    text, record = (
        section(read("docs/verification.md"), "Intervals"),
        json.loads(read("benchmarks/measured/coverage.json")),
    )
    for value in ("held", "below_0.01"):
        assert coverage.table(record["cells"], value) in text
    assert f"{record['replications']:,} intervals for each cell" in text
    # 93 to 97 %, and what chance adds to the largest of so many cells
    chance = 2.5 * (0.95 * 0.05 / record["replications"]) ** 0.5
    assert all(0.93 - chance <= cell["held"] <= 0.97 + chance for cell in record["cells"])


def test_every_entry_of_the_tree_exists() -> None:
    (tree,) = (block.text for block in blocks(section(read("README.md"), "Repository")))
    parent = ROOT
    missing = []
    for line in tree.splitlines():
        entry, description = line.split(maxsplit=1)
        path = (parent if line.startswith(" ") else ROOT) / entry
        if not line.startswith(" "):
            parent = path
        inside = re.findall(r"\b(?:\w+\.py|[a-z]+/)(?!\w)", description)
        missing += [str(p.relative_to(ROOT)) for p in (path, *(path / name for name in inside)) if not p.exists()]
    assert not missing


# --- the studies ------------------------------------------------------------------------------------------------------

_SUMMARY = read("README.md").partition("The default shows")[2].partition("\n## ")[0]  # of the studies
STUDY = read("docs/camvid.md") + read("docs/evidence.md") + _SUMMARY
OWN_WORDS = {"Dataset", "Form", "p, all rows"}  # columns of the summary that no report has
STUDIES = sorted(path.parts[-3] for path in (ROOT / "reports").glob("*/small/runs"))
REPORTED = [table for study in STUDIES for table in tables(read(f"reports/{study}/small/report.md"))]
_NUMBER = r"[+−]?\d+\.\d{2,3}"


def test_every_row_of_results_is_a_row_of_a_report() -> None:
    shown = [table for table in tables(STUDY) if "With %" in table.columns]
    assert len(shown) == 2
    for table in shown:
        reported = [row for other in REPORTED if table.caption in ("", other.caption) for row in other.rows]
        for row in table.rows:
            numbers = {key: cell for key, cell in row.items() if key not in OWN_WORDS}
            assert any(numbers.items() <= other.items() for other in reported), (table.caption, row)


def test_the_p_values_over_all_rows_are_those_of_the_reports_adjusted_together() -> None:
    (table,) = (table for table in tables(read("docs/evidence.md")) if "p, all rows" in table.columns)
    reported = [row for other in REPORTED for row in other.rows if "p, adjusted" in row]
    found = []
    for row in table.rows:
        numbers = {key: cell for key, cell in row.items() if key not in OWN_WORDS}.items()
        found.append(next(float(other["p"].removeprefix("< ")) for other in reported if numbers <= other.items()))
    judged = holm([Estimate(0.0, 0.0, 0.0, np.zeros(1), p, p) for p in found])
    assert [row["p, all rows"] for row in table.rows] == [p_value(estimate.adjusted) for estimate in judged]


def test_every_difference_in_the_text_has_its_interval_in_the_report() -> None:
    text = without_code(STUDY)
    found = re.findall(rf"({_NUMBER}) (\[{_NUMBER},\s{_NUMBER}\])", text)
    assert len(found) >= 3
    for value, interval in found:
        pairs = (pair for table in REPORTED for cells in table.cells for pair in pairwise(cells))
        assert (value, re.sub(r"\s", " ", interval)) in pairs


def test_every_decimal_number_in_the_text_is_one_of_the_report() -> None:
    cells = [cell for table in tables(STUDY) for row in table.rows for key, cell in row.items() if key != "p, all rows"]
    prose = [line for line in STUDY.splitlines() if not line.startswith("|")]
    text = without_code("\n".join([*prose, *cells]))
    cells = " ".join(cell for table in REPORTED for cells in table.cells for cell in cells)
    reported = set(re.findall(_NUMBER, cells))
    assert set(re.findall(rf"(?<![\w.]){_NUMBER}(?![\w.])", text)) <= reported


@pytest.mark.parametrize("study", ["camvid", "camvid-cause", "camvid-family", "camvid-pspnet", "ccp"])
def test_the_number_of_trainings_is_that_of_the_records(study: str) -> None:
    runs = list((ROOT / "reports" / study / "small" / "runs").glob("*.json"))
    planned = len(load_plan(ROOT, study, "small").runs)
    number = f"all {planned}" if len(runs) == planned else f"{len(runs)} of the {planned}"
    assert re.search(rf"{number} (planned )?trainings", STUDY)
    assert f"{len(runs)} of {planned} planned trainings" in read(f"reports/{study}/small/report.md")


# --- speed and memory -------------------------------------------------------------------------------------------------

MEASURED = json.loads(read("benchmarks/measured/two-cpu-cores.json"))
PERFORMANCE = read("docs/performance.md")


def assert_measured(row: dict[str, str], record: dict) -> None:
    memory = {side: value["extra"] for side, value in record["memory"].items()}
    assert row["Setting"] == record["setting"]
    for column, seconds in (("Time, here", record["ours_s"]), ("Time, reference", record["reference_s"])):
        assert agrees(row[column], seconds * (1000 if row[column].endswith(" ms") else 1)), row
    assert agrees(row["Faster"], record["ratio"]), row
    assert agrees(row["Memory, here"], memory["ours"] / 2**20), row
    assert agrees(row["Memory, reference"], memory["reference"] / 2**20), row
    assert agrees(row["Smaller"], memory["reference"] / memory["ours"]), row


def test_times_and_memory_are_those_measured() -> None:
    compared, alone, *_ = (table.rows for table in tables(PERFORMANCE))
    assert {row["Row"] for row in (*compared, *alone)} == set(MEASURED["rows"])
    for row in compared:
        assert_measured(row, MEASURED["rows"][row["Row"]])
    for row in alone:
        record = MEASURED["rows"][row["Row"]]
        assert row["Setting"] == record["setting"]
        assert row["Time"].endswith(f" per {record['unit']}")
        assert agrees(row["Time"], record["ours_s"] * (1000 if " ms " in row["Time"] else 1)), row


def test_times_and_memory_on_a_gpu_are_those_measured() -> None:
    record = json.loads(read("benchmarks/measured/h100.json"))
    (table,) = (table for table in tables(PERFORMANCE) if "Row on one H100" in table.columns)
    assert [row["Row on one H100"] for row in table.rows] == list(record["rows"])
    for row, measured in zip(table.rows, record["rows"].values(), strict=True):
        assert_measured(row, measured)
    assert record["waits"]["per_step"] == 1
    assert record["about"]["commit"][:7] in PERFORMANCE


def test_the_profile_and_what_follows_from_it_are_as_measured() -> None:
    record = json.loads(read("benchmarks/measured/step-profile.json"))
    (profile,) = (table.rows for table in tables(PERFORMANCE) if "operations" in table.columns)
    names = ("training step", "evaluation, single scale", "evaluation, ms+flip")
    for name, row in product(names, profile):
        assert row[name] == f"{100 * record[name].get(row['operations'], 0):.1f} %"
    most = [1 / record[name]["convolutions"] for name in names]
    now = [MEASURED["rows"][name]["ratio"] for name in names]
    step, single, views = (f"{bound:.2f}" for bound in most)
    text = " ".join(PERFORMANCE.split())
    assert f"training step would be {step}, a single scale {single} and ms+flip {views} times as fast" in text
    step, single, views = (f"{ratio * bound:.2f}x" for ratio, bound in zip(now, most, strict=True))
    assert f"could become {step}, {single} and {views}" in text
    assert record["about"]["commit"][:7] in PERFORMANCE


def test_seconds_to_start_a_stage_are_those_measured() -> None:
    record, table = json.loads(read("benchmarks/measured/stage-start.json"))["seconds"], tables(PERFORMANCE)[-1]
    assert [cells[0] for cells in table.cells] == list(record)
    for stage, *shown in table.cells:
        assert all(agrees(text, value) for text, value in zip(shown, record[stage], strict=True)), stage


def test_seconds_beside_busy_processes_are_those_measured() -> None:
    record = json.loads(read("benchmarks/measured/shared-machine.json"))["seconds_per_step"]
    table = tables(PERFORMANCE)[-2]
    medians = {busy: [statistics.median(rounds) for rounds in settings.values()] for busy, settings in record.items()}
    assert [cells[0] for cells in table.cells] == list(record)
    for busy, *shown in table.cells:
        assert all(agrees(text, value) for text, value in zip(shown, medians[busy], strict=True)), busy
    ratios = re.search(r"takes (\S+) times as long as alone, in place of (\S+) times", PERFORMANCE)
    (theirs, ours, _), (their_busy, our_busy, _) = medians["0"], medians["2"]
    assert ratios is not None
    assert agrees(ratios[1], our_busy / ours)
    assert agrees(ratios[2], their_busy / theirs)


def test_commit_machine_and_rounds_are_those_measured() -> None:
    about = MEASURED["about"]
    rounds = MEASURED["rows"]["evaluation, ms+flip"]["rounds"]
    ratios = [theirs / ours for ours, theirs in zip(rounds["ours_s"], rounds["reference_s"], strict=True)]
    commit, seconds = re.findall(r"commit `(\w+)`.* (\d+) s,", PERFORMANCE)[0]
    assert about["commit"].startswith(commit)
    assert agrees(seconds, about["seconds"])
    assert about["processor"] in PERFORMANCE
    assert f"torch {about['torch'].partition('+')[0]}" in PERFORMANCE
    shown = re.search(r"ms\+flip gave (.+)x and (.+)x", PERFORMANCE)
    assert shown is not None
    assert all(agrees(text, ratio) for text, ratio in zip(shown.groups(), ratios, strict=True))


# --- published numbers ------------------------------------------------------------------------------------------------


def test_published_numbers_are_those_of_the_benchmarks() -> None:
    rows = tables(section(read("docs/published-rows.md"), "Published numbers"))[0].rows
    for row in rows:
        published = load_benchmark(ROOT, row["benchmark"]).published
        expected = [
            score
            for scores in (published.paper, published.model_zoo)
            for score in (scores.single_scale, scores.ms_flip)
        ]
        assert list(row.values())[1:] == [_percent(score) for score in expected], row
    successor = {
        row["benchmark"]: row for row in tables(section(read("docs/published-rows.md"), "Published numbers"))[1].rows
    }
    assert set(successor) == {name for name in benchmark_ids(ROOT) if name.startswith("pp-")}
    for name, row in successor.items():
        scores = load_benchmark(ROOT, name).published.model_zoo
        assert list(row.values())[1:] == [_percent(scores.single_scale), _percent(scores.ms_flip)], name
    baselines = dict(re.findall(r"`(base-\w+)` \| ([\d.]+)", read("docs/published-rows.md")))
    for name, score in baselines.items():
        assert score == _percent(load_benchmark(ROOT, name).published.model_zoo.single_scale), name
    listed = {row["benchmark"] for row in rows} | set(baselines) | set(successor)
    assert listed == {name for name in benchmark_ids(ROOT) if not name.startswith(("digits", "camvid", "ccp"))}


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


# --- all pages --------------------------------------------------------------------------------------------------------


@each_page
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@each_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets


def avoided(path: Path, phrases: Sequence[str]) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [f"{path.name}: {phrase}" for phrase in phrases if re.search(rf"\b{re.escape(phrase)}", text)]


@each_page
def test_the_words_are_plain(page: Path) -> None:
    assert not avoided(page, [*AVOIDED, *AVOIDED_IN_PAGES])


@pytest.mark.parametrize("folder", ["pipeline", "stages", "benchmarks"])
def test_the_words_of_the_code_are_plain(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".j2")]
    assert not [phrase for path in files for phrase in avoided(path, AVOIDED)]
