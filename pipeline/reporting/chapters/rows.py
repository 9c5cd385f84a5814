"""Chapter about the published rows: what became of them here, and which were not chosen."""

from __future__ import annotations

from pipeline.config import Benchmark
from pipeline.config.overlay import value_at
from pipeline.config.schema import PROTOCOLS
from pipeline.reporting.chapters.compared import SHORT, rows_run
from pipeline.reporting.page import Section, Table, section
from pipeline.reporting.study import Study, Variant
from pipeline.reporting.words import NONE, percent, plain, plural, points, points_interval, protocol
from pipeline.results import compare
from pipeline.results.compare import TOLERANCE, published_numbers


def published(study: Study) -> Section | None:
    """All published rows, then what belongs to single ones: server archives, published gains, open questions."""
    if not study.published:
        return None
    files = {benchmark.id: benchmark for benchmark in study.published}
    listed = [*study.rows, *(b for b in study.published if b not in study.rows and b.id in study.variants)]
    ran = [variant for variant in study.ran if variant.name in files]
    return section(
        "published",
        "published",
        rows=study.rows,
        rows_run=rows_run(study),
        tolerance=TOLERANCE,
        table=Table("Published rows", [_row(study, file) for file in listed]),
        server=Table(
            "Rows that a server scores: archives, and a number of another split",
            [_server(study, variant) for variant in ran if variant.server_scored],
        ),
        gains=Table("Gain over the published baseline, single scale, points", _gains(study, files)),
        questions=Table(
            "Open questions, and how they were decided here",
            [row for variant in ran for row in _questions(variant, files[variant.name])],
        ),
    )


def _row(study: Study, file: Benchmark) -> dict[str, str]:
    variant = study.variants.get(file.id)
    row = {"Row": f"`{file.id}`"}
    for name in PROTOCOLS:
        cells = (_published(*published_numbers(file, name)), NONE, NONE, NONE)
        if variant is not None:
            cells = _numbers(study, variant, file, name)
        heads = ("published", "reproduced", "difference", "within tolerance")
        row |= {f"{SHORT[name]}: {head}": cell for head, cell in zip(heads, cells, strict=True)}
    if variant is None:
        return row | {"How": "not chosen", "Protocol": NONE}
    inference = variant.benchmark.inference.protocols.values()
    return row | {"How": _how(variant), "Protocol": "; ".join(protocol(each) for each in inference)}


def _numbers(study: Study, variant: Variant, file: Benchmark, name: str) -> tuple[str, str, str, str]:
    measured = 100 * study.score(variant.name, name).per_seed
    found = compare.compare(file, name, measured, variant.imported, variant.marks(file))
    # A number of the validation split beside one of the test server would be taken for the same thing.
    reproduced = NONE if variant.server_scored else f"{found.reproduced:.2f}"
    verdict = found.verdict or NONE
    if found.interval and verdict != NONE:
        verdict += f" [{found.interval[0]:.2f}, {found.interval[1]:.2f}]"
    difference = NONE if found.difference is None else points(found.difference / 100)
    return _published(found.published, found.paper), reproduced, difference, verdict


def _published(number: float | None, paper: float | None) -> str:
    if number is None:
        return NONE
    return f"{number:.2f}" if paper is None else f"{number:.2f} ({paper:.2f})"


def _how(variant: Variant) -> str:
    run = variant.runs[0]
    how = f"trained, {plural(len(variant.runs), 'seed')}"
    if variant.imported:
        file = run.training.record.checkpoint
        names = {"paper": "paper", "model_zoo": "model zoo", "local": f"local file {plain(file['file'])}"}
        how = f"imported checkpoint ({names[file['generation']]})"
    return how if run.precision == "float32" else f"{how}, {run.precision}"


def _server(study: Study, variant: Variant) -> dict[str, str]:
    files = variant.runs[0].evaluation
    names = (files.record.submission or {"files": {}})["files"].values()
    archives = [f"`{(files.folder / name).relative_to(files.layout.root)}`" for name in names]
    seen = "; these images were trained on" if variant.split in variant.benchmark.dataset.train_splits else ""
    return {
        "Row": f"`{variant.name}`",
        "Archives to submit": ", ".join(archives) or "none: the data has no such images",
        **{f"{SHORT[name]} %": percent(study.score(variant.name, name).value) for name in PROTOCOLS},
        "What these numbers are": f"{variant.split}, local{seen}",
    }


def _gains(study: Study, files: dict[str, Benchmark]) -> list[dict[str, str]]:
    """Rows whose baseline is a published benchmark, at single scale: the baselines' only published protocol."""
    found = []
    for row in study.rows:
        if row.baseline not in files:
            continue
        pair = (row.baseline, row.id)
        before, after = (published_numbers(files[name], "single_scale")[0] for name in pair)
        if after is None or before is None:
            continue
        here = NONE
        if pair in study.pairs and not any(study.variants[name].marks(files[name]) for name in pair):
            gain = study.gain([pair], "single_scale")
            here = f"{points(gain.value)} {points_interval(gain)}"
        found.append(
            {
                "Row": f"`{row.id}`",
                "Baseline": f"`{row.baseline}`",
                "Row: published": f"{after:.2f}",
                "Baseline: published": f"{before:.2f}",
                "Published gain": points((after - before) / 100),
                "Gain here": here,
            }
        )
    return found


def _questions(variant: Variant, file: Benchmark) -> list[dict[str, str]]:
    found, both = [], [benchmark.model_dump(mode="json") for benchmark in (variant.benchmark, file)]
    for question in file.published.open_questions:
        ran, default = (_value(value_at(values, question.key)) for values in both)
        found.append(
            {
                "Row": f"`{variant.name}`",
                "Key": f"`{question.key}`",
                "Value that ran": ran,
                "The file's default": "yes" if ran == default else f"no, that is {default}",
                "What is open": plain(" ".join(question.note.split())),
            }
        )
    return found


def _value(value: object) -> str:
    if value is None:
        return "not set"
    return plain(str(value).lower() if isinstance(value, bool) else str(value))
