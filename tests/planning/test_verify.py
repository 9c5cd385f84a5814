"""The command `verify`: judges what was run, says where a difference begins, and ends with an exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.fake_results import benchmark, other_trainings, write_results
from helpers.project import ROOT, edit_json, edit_yaml, write_yaml
from helpers.repro import make_repository

from pipeline.config.study import load_plan
from pipeline.errors import PipelineError
from pipeline.planning.verify import first_difference, verify
from pipeline.reporting.study import chosen_study
from pipeline.results.reference import Reference, write_reference
from pipeline.results.run import read_record
from pipeline.tracking.store import open_store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two results that are their own reference, without MLflow."""
    write_results(tmp_path, images=6, benchmarks=[benchmark("fcn", memory) for memory in (False, True)])
    edit_yaml(tmp_path / "params.yaml", runtime={"mlflow": False})
    for variant in chosen_study(tmp_path).ran:
        write_reference(tmp_path, Reference.of_runs(variant.benchmark, variant.runs))
    return tmp_path


def test_it_prints_a_table_and_writes_the_judgements(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(project, None, None)
    printed = capsys.readouterr().out
    assert "camvid-fcn → camvid-fcn-mcibi" in printed
    assert printed.endswith("identical (reports/verdict.json)\n")
    found = json.loads((project / "reports/verdict.json").read_text())
    assert found["verdict"] == "identical"
    assert {judgement["word"] for judgement in found["judgements"]} == {"identical"}


def test_a_different_result_fails_and_names_the_first_stage_that_differs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {
        "evaluate-msflip@camvid-fcn-0": {"deps": [], "outs": [{"path": "e", "md5": "1"}]},
        "train@camvid-fcn-0": {
            "deps": [{"path": "pipeline/training/step.py", "md5": "1"}, {"path": "pipeline/models", "md5": "1"}],
            "outs": [{"path": "w", "md5": "1"}],
        },
        "preprocess": {"deps": [], "outs": [{"path": "data/index", "md5": "1"}]},
    }
    write_yaml(project / "dvc.lock", {"schema": "2.0", "stages": stages})
    make_repository(project, "all")
    stages["train@camvid-fcn-0"]["outs"][0]["md5"] = "2"
    stages["train@camvid-fcn-0"]["deps"][0]["md5"] = "2"
    stages["evaluate-msflip@camvid-fcn-0"]["outs"][0]["md5"] = "2"
    write_yaml(project / "dvc.lock", {"schema": "2.0", "stages": stages})
    (without, _) = chosen_study(project).ran
    write_reference(project, other_trainings(without.benchmark, without.runs, shift=0.5))
    assert not verify(project, None, None)
    assert "train@camvid-fcn-0 (its inputs differ: pipeline/training/step.py)" in capsys.readouterr().out
    assert "no stage's output differs" in first_difference(project, ["camvid-fcn-mcibi"])


def test_evaluations_in_mlflow_get_the_verdict_as_a_tag(project: Path) -> None:
    edit_yaml(project / "params.yaml", runtime={"mlflow": True})
    run = chosen_study(project).runs[0]
    tags = {"benchmark": run.name, "seed": str(run.seed), "run_key": run.run_key, "stage": "evaluate-msflip"}
    with open_store(project) as store:
        experiment = store.experiment("camvid")
        tags |= {"evaluation_hash": run.evaluation_hash}
        tracked = store.client.create_run(experiment, tags=tags).info.run_id
    verify(project, None, None)
    with open_store(project) as store:
        found = store.client.get_run(tracked).data.tags
    assert (found["verdict.single_scale"], found["verdict.ms_flip"]) == ("identical", "identical")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The committed CamVid records in a repository of their own."""
    for name in ("params", "studies", "reports/camvid/small/runs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    make_repository(tmp_path, "all")
    return tmp_path


def _rerun(root: Path, variant: str, seed: int) -> None:
    """Make a record look as if it had been run again."""
    path = load_plan(root, "camvid", "small").records(root) / f"{variant}-{seed}.json"
    edit_json(path, finished="2031-01-01T00:00:00+00:00")


def test_a_rerun_of_a_study_is_judged_by_its_committed_records(study: Path) -> None:
    with pytest.raises(PipelineError, match="nothing was run again"):
        verify(study, "camvid", "small")
    plan = load_plan(study, "camvid", "small")
    (before, after) = next(iter(plan.config.comparisons.values())).pairs[0]
    for name in (before, after):
        _rerun(study, name, 0)
    assert verify(study, "camvid", "small")
    found = json.loads((study / "reports/camvid/verdict-small.json").read_text())["judgements"]
    assert [judgement["names"] for judgement in found] == [[before]] * 2 + [[after]] * 2 + [[before, after]] * 2
    assert {judgement["word"] for judgement in found} == {"reproduced"}
    committed = [read_record(plan.records(study), before, seed) for seed in (0, 1)]
    mean = np.mean([run.scores["single_scale"].miou for run in committed])
    assert found[0]["reference"] == pytest.approx(100 * mean)
