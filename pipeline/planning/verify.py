"""The command `verify`: did what was run reproduce? A table, reports/verdict.json, tags in MLflow, an exit status."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.config import load_project
from pipeline.config.parse import read_yaml
from pipeline.config.study import StudyPlan, load_plan
from pipeline.errors import PipelineError
from pipeline.files.storage import write_json
from pipeline.reporting.chapters.verdict import judge, row
from pipeline.reporting.study import chosen_study
from pipeline.results.reference import Reference
from pipeline.results.run import Run, read_record
from pipeline.results.verdict import Verdict, verdicts, worst
from pipeline.runtime.provenance import git, why_no_commit


def verify(root: Path, study: str | None, size: str | None) -> bool:
    """Judge the results of params.yaml, or the rerun of a study by its committed records; True unless any is different.

    Raises PipelineError when a result is missing or does not belong to the others.
    """
    if study is None and size is not None:
        raise PipelineError(f"--size {size}: names the size of a study; name it too: `verify STUDY --size {size}`")
    if study is not None:
        found = _of_study(root, load_plan(root, study, size or ""))
        out = root / "reports" / study / f"verdict-{size}.json"
    else:
        chosen = chosen_study(root)
        found = [
            replace(each, reason=first_difference(root, each.names)) if each.word == "different" else each
            for each in judge(chosen)
        ]
        out = root / "reports" / "verdict.json"
        if load_project(root).runtime.mlflow:
            _tag(root, chosen.runs, found)
    write_json(out, {"verdict": worst(found), "judgements": [asdict(each) for each in found]})
    cells = pd.DataFrame([row(each) for each in found])
    print(cells.replace(r"[`*\\]", "", regex=True).to_string(index=False))
    print(f"\n{worst(found)} ({out.relative_to(root)})")
    return worst(found) != "different"


def _of_study(root: Path, plan: StudyPlan) -> list[Verdict]:
    """Records that differ from the committed ones, judged by these."""
    with tempfile.TemporaryDirectory() as folder:
        committed = _committed(root, plan.records(root).relative_to(root), Path(folder))
        runs: dict[str, list[Run]] = {}
        kept: dict[str, list[Run]] = {}
        for variant, seed in plan.runs:
            here, there = (read_record(place, variant, seed) for place in (plan.records(root), committed))
            if there is not None:
                kept.setdefault(variant, []).append(there)
            if here is not None and (there is None or here.finished != there.finished):
                runs.setdefault(variant, []).append(here)
    if not runs:
        raise PipelineError(
            f"{plan.records(root).relative_to(root)}: every record is the committed one: nothing was run again; delete "
            f"a record and run `python -m pipeline study {plan.name} --size {plan.size}`"
        )
    references = {name: Reference.of_runs(plan.benchmarks[name], of) for name, of in kept.items()}
    pairs = [pair for comparison in plan.config.comparisons.values() for pair in comparison.pairs]
    pairs = [pair for pair in dict.fromkeys(pairs) if set(pair) <= set(runs)]
    return verdicts({name: (plan.benchmarks[name], of) for name, of in runs.items()}, pairs, references)


def _committed(root: Path, folder: Path, target: Path) -> Path:
    """`folder` of the last commit, unpacked below `target`. Raises PipelineError when it is not in Git."""
    if git(root, "rev-parse", "HEAD") is None:
        raise PipelineError(f"{folder}: no commit whose records could be compared with: {why_no_commit(root)}")
    done = subprocess.run(["git", "-C", root, "archive", "HEAD", folder], capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode().strip()
        raise PipelineError(f"{folder}: no records in the last commit to compare with ({reason})")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")
    return target / folder


def first_difference(root: Path, benchmarks: Sequence[str]) -> str:
    """The first stage of dvc.lock, among those that `benchmarks` need, whose outputs differ from the committed ones."""
    committed = git(root, "show", "HEAD:./dvc.lock")
    if committed is None or not (root / "dvc.lock").is_file():
        return "no committed dvc.lock to find the first differing stage with"
    before, after = yaml.safe_load(committed)["stages"], read_yaml(root / "dvc.lock")["stages"]
    order = ("plan", "download", "preprocess", "train", "evaluate-msflip")
    names = sorted(after, key=lambda name: order.index(_kind(name)) if _kind(name) in order else len(order))
    for name in names:
        own = "@" not in name or name.partition("@")[2].rpartition("-")[0] in benchmarks
        if _kind(name) not in order or not own:
            continue
        if name not in before:
            return f"{name} is not in the committed dvc.lock"
        changed = [part for part in ("outs", "deps") if _hashes(before[name], part) != _hashes(after[name], part)]
        if "outs" in changed:
            old, new = (_hashes(lock[name], "deps") for lock in (before, after))
            inputs = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
            reason = f"its inputs differ: {', '.join(inputs[:5])}" if inputs else "with equal code and data"
            return f"first stage whose output differs from the committed dvc.lock: {name} ({reason})"
    return "no stage's output differs from the committed dvc.lock"


def _kind(stage: str) -> str:
    return stage.partition("@")[0]


def _hashes(stage: dict[str, Any], part: str) -> dict[str, str]:
    return {entry["path"]: entry.get("md5") or entry.get("hash") for entry in stage.get(part, ())}


def _tag(root: Path, runs: Sequence[Run], found: Sequence[Verdict]) -> None:
    from pipeline.tracking.verdicts import tag_evaluations  # MLflow takes seconds to import

    words = {
        run.name: {f"verdict.{each.protocol}": each.word for each in found if each.names == (run.name,)} for run in runs
    }
    tag_evaluations(root, runs, words)
