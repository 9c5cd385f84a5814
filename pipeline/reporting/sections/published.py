"""Chapter 11: the published rows, what became of them here, and why the others are missing."""

from __future__ import annotations

from pipeline.checkpoints.planned import weights_of
from pipeline.config import Benchmark
from pipeline.planning.present import data_presence, weights_presence
from pipeline.reporting.analysis import Analysis
from pipeline.reporting.comparison import TOLERANCE, Comparison, compare, file_of, is_published, marks, numbers
from pipeline.reporting.content import Block, Column, Section, Table, Text
from pipeline.reporting.results import Result, Study
from pipeline.reporting.wording import NONE, compact_protocol, percent, percent_interval, plain, plural, points
from pipeline.results.published import published_of, value_at

SHORT = {"single_scale": "Single scale", "ms_flip": "ms+flip"}
RULES = f"""mIoU in percent. *Published* is the authors' later model zoo, whose protocol is the one used here; where the
paper's repository gives another number, that follows in parentheses. LIP's second number is with flip at a single
scale. *Difference* is reproduced minus published, at the two decimals that are printed.

*Within tolerance*, for an imported checkpoint: the difference is at most {TOLERANCE} points, which the authors allow
for another environment. For own trainings: the published number, one training itself, lies in the 95 % prediction
interval for one more training like these, mean ± t · SD · √(1 + 1/n) over n seeds (t with n − 1 degrees of freedom);
the interval is shown. One seed has no spread and is not judged. Not judged either: a part of the dataset (*subset*), a
configuration that departs from the row's file (*changed*), a test set that only a *server* can score."""


def section(analysis: Analysis) -> Section:
    """All published rows, then what belongs to single ones: server archives, published gains, open questions."""
    study = analysis.study
    listed = [*study.rows, *(b for b in study.published if b not in study.rows and study.result(b.id))]
    blocks: list[Block] = [Text(f"{_count(study)}.\n\n{RULES}")]
    if listed:
        blocks.append(Table("Published rows", _columns(), tuple(_row(analysis, benchmark) for benchmark in listed)))
    run = [result for result in study.results if is_published(study, result)]
    for table in (_server(analysis, run), _gains(analysis), _questions(study, run)):
        if table.rows:
            blocks.append(table)
    return Section("published", "Published rows", tuple(blocks))


def summary(study: Study) -> str:
    """One sentence for the headline."""
    return f"{_count(study)} ([all rows](#published))."


def _count(study: Study) -> str:
    run = sum(study.result(row.id) is not None for row in study.rows)
    if run:
        return f"Of the {len(study.rows)} published rows {run} {'was' if run == 1 else 'were'} run"
    return (
        f"None of the {len(study.rows)} published rows was run, so nothing here says whether the published numbers can "
        "be reached"
    )


def _columns() -> tuple[Column, ...]:
    columns = [Column("Row", number=False)]
    for words in SHORT.values():
        columns += [Column(f"{words}: {name}") for name in ("published", "reproduced", "difference")]
        columns.append(Column(f"{words}: within tolerance", number=False))
    return (*columns, Column("How", number=False), Column("Protocol", number=False))


def _row(analysis: Analysis, benchmark: Benchmark) -> tuple[str, ...]:
    result = analysis.study.result(benchmark.id)
    cells: list[str] = []
    for protocol in SHORT:
        if result is None:
            cells += [_published(*numbers(benchmark, protocol)), NONE, NONE, NONE]
        else:
            cells += _numbers(compare(analysis, result, protocol), result)
    how = _missing(analysis.study, benchmark) if result is None else _how(result)
    return (f"`{benchmark.id}`", *cells, how, NONE if result is None else _protocols(result))


def _numbers(comparison: Comparison, result: Result) -> list[str]:
    # A number of the validation split beside one of the test server would be taken for the same thing.
    reproduced = NONE if result.server_scored else f"{comparison.reproduced:.2f}"
    verdict = comparison.verdict or NONE
    if comparison.interval and verdict != NONE:
        verdict += f" {percent_interval(*(end / 100 for end in comparison.interval))}"
    difference = NONE if comparison.difference is None else points(comparison.difference / 100)
    return [_published(comparison.published, comparison.paper), reproduced, difference, verdict]


def _published(number: float | None, paper: float | None) -> str:
    if number is None:
        return NONE
    return f"{number:.2f}" if paper is None else f"{number:.2f} ({paper:.2f})"


def _how(result: Result) -> str:
    summary = result.runs[0].summary
    words = f"trained, {plural(len(result.runs), 'seed')}"
    if result.imported:
        file = summary["checkpoint"]
        names = {"paper": "paper", "model_zoo": "model zoo", "local": f"local file {plain(file['file'])}"}
        words = f"imported checkpoint ({names[file['generation']]})"
    return words if summary["precision"] == "float32" else f"{words}, {summary['precision']}"


def _protocols(result: Result) -> str:
    inference = result.benchmark.inference
    return "; ".join(compact_protocol(getattr(inference, name)) for name in SHORT)


def _missing(study: Study, benchmark: Benchmark) -> str:
    """Why a row was not run: everything that would have to be supplied."""
    reasons = ["not chosen in params.yaml"]
    if not data_presence(study.root, study.project, benchmark.dataset.name).present:
        reasons.append("data absent")
    if not weights_presence(study.root, weights_of(benchmark, study.project.weights)).present:
        reasons.append("weights absent")
    return f"not run: {', '.join(reasons)}"


def _server(analysis: Analysis, run: list[Result]) -> Table:
    columns = (
        *(Column("Row", number=False), Column("Archives to submit", number=False), Column("Single scale %")),
        *(Column("ms+flip %"), Column("What these numbers are", number=False)),
    )
    rows = []
    for result in run:
        if not result.server_scored:
            continue
        folder, files = (
            f"runs/evaluate/{result.id}/{result.runs[0].seed}",
            (result.submission or {"files": {}})["files"],
        )
        archives = ", ".join(f"`{folder}/{name}`" for name in files.values()) or "none: the data has no such images"
        seen = result.split in result.benchmark.dataset.train_splits
        label = f"{result.split}, local{'; these images were trained on' if seen else ''}"
        scores = [percent(analysis.score(result, name).value) for name in SHORT]
        rows.append((f"`{result.id}`", archives, *scores, label))
    return Table("Rows that a server scores: archives, and a number of another split", columns, tuple(rows))


def _gains(analysis: Analysis) -> Table:
    """Rows whose baseline is a published benchmark, at single scale: the baselines' only published protocol."""
    columns = (
        *(Column("Row", number=False), Column("Baseline", number=False), Column("Row: published")),
        *(Column("Baseline: published"), Column("Published gain"), Column("Gain here")),
    )
    study = analysis.study
    by_id = {benchmark.id: benchmark for benchmark in study.published}
    pairs = {pair.memory.id: pair for pair in study.pairs}
    rows = []
    for row in study.rows:
        if row.baseline not in by_id:
            continue
        after, before = (numbers(by_id[name], "single_scale")[0] for name in (row.id, row.baseline))
        if after is None or before is None:
            continue
        here, pair = NONE, pairs.get(row.id)
        if pair is not None and not marks(study, pair.memory) and not marks(study, pair.baseline):
            gain = analysis.gain(pair, "single_scale")
            here = f"{points(gain.value)} [{points(gain.low)}, {points(gain.high)}]"
        published = (f"{after:.2f}", f"{before:.2f}", points((after - before) / 100))
        rows.append((f"`{row.id}`", f"`{row.baseline}`", *published, here))
    return Table("Gain over the published baseline, single scale, points", columns, tuple(rows))


def _questions(study: Study, run: list[Result]) -> Table:
    columns = (
        *(Column("Row", number=False), Column("Key", number=False), Column("Value that ran", number=False)),
        *(Column("The file's default", number=False), Column("What is open", number=False)),
    )
    rows = []
    for result in run:
        file = file_of(study, result)
        for question in published_of(file).open_questions:
            ran, default = (value_at(benchmark, question.key) for benchmark in (result.benchmark, file))
            is_default = "yes" if ran == default else f"no, that is {plain(_value(default))}"
            note = plain(" ".join(question.note.split()))
            rows.append((f"`{result.id}`", f"`{question.key}`", plain(_value(ran)), is_default, note))
    return Table("Open questions, and how they were decided here", columns, tuple(rows))


def _value(value: object) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
