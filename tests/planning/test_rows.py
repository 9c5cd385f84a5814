"""The commands `row` and `rows`: what they print before they start, what they refuse, what they run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, edit_yaml, write_yaml

from pipeline.config import load_project
from pipeline.errors import PipelineError
from pipeline.files.storage import write_json
from pipeline.layout import Layout
from pipeline.planning import rows
from pipeline.planning.rows import run_row, run_rows
from pipeline.results.published import published_benchmarks

ROW = "ade20k-resnet50os8"
CHECKPOINT = "https://github.com/SegmentationBLWX/modelstore/releases/download/ssseg_memorynet/deeplabv3_r50_ade20k.pth"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project's own params.yaml and params/, and nothing else."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def dry_run(root: Path, capsys: pytest.CaptureFixture[str], **options: object) -> str:
    run_row(root, ROW, **{"mode": "import", "seeds": None, "dry_run": True} | options)
    return capsys.readouterr().out


def test_an_import_prints_what_it_downloads_the_published_numbers_and_the_command(root: Path, capsys) -> None:
    text = dry_run(root, capsys)
    assert f"{ROW}  ade20k" in text
    assert "import" in text
    assert "published mIoU: 44.39 single scale, 45.97 ms+flip (model zoo)" in text
    assert "download 0.97 GB: " in text
    assert f"download 0.37 GB: {CHECKPOINT}" in text  # 4 bytes per parameter
    assert f"dvc exp run --temp --name {ROW}-import -S 'benchmarks=[{ROW}]' -S 'seeds=[0]'" in text


def test_a_training_starts_from_imagenet_weights_with_the_given_seeds(root: Path, capsys) -> None:
    text = dry_run(root, capsys, mode="train", seeds=[3, 4])
    assert "seeds 3, 4: 2 trainings" in text
    assert "resnet50_v1c-2cccc1ad.pth" in text
    assert "-S 'seeds=[3,4]' -S ++ablation.mode=train" in text


def test_a_row_without_git_says_what_it_needs(root: Path) -> None:
    with pytest.raises(PipelineError, match=r"needs a commit: not a git repository.*git init"):
        run_row(root, ROW, "import", None, dry_run=False)


def test_what_is_on_this_machine_is_not_downloaded(root: Path, capsys) -> None:
    (root / "ade").mkdir()
    (root / "mine.pth").touch()
    edit_yaml(root / "params.yaml", sources={"ade20k": "ade"}, weights={ROW: "mine.pth"})
    text = dry_run(root, capsys)
    assert "download" not in text
    assert text.count("present") == 2


def test_a_recorded_weight_file_has_its_recorded_size_and_is_found_where_it_was_put(root: Path, capsys) -> None:
    lock = {ROW: {"url": CHECKPOINT, "bytes": 123_000_000, "sha256": "0" * 64}}
    write_json(Layout(root).weights_lock, lock)
    assert f"download 0.12 GB: {CHECKPOINT}" in dry_run(root, capsys)
    path = Layout(root).weights / "ssseg_memorynet" / "deeplabv3_r50_ade20k.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert CHECKPOINT not in dry_run(root, capsys)


def test_an_ablation_that_changes_the_row_is_pointed_out(root: Path, capsys) -> None:
    edit_yaml(root / "params.yaml", ablation={"memory": {"strategy": "mean"}})
    assert "ablation: params.yaml changes memory.strategy, so the result is not compared" in dry_run(root, capsys)


@pytest.mark.parametrize(
    ("row", "mode", "seeds", "message"),
    [
        ("cityscapes-resnet50os8", "import", None, r"cityscapes: .*set `sources: \{cityscapes: PATH\}` in params.yaml"),
        ("cityscape-resnet50os8", "import", None, "no published row; did you mean `cityscapes-resnet50os8`"),
        (ROW, "import", [0, 1], "a published checkpoint has no seeds"),
        (ROW, "train", [3, 4, 3], r"--seeds: 3 .*list each seed once"),
    ],
)
def test_what_cannot_start_is_refused_with_the_remedy(root: Path, row: str, mode: str, seeds, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        run_row(root, row, mode, seeds, dry_run=True)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows are enough: a network is built for each."""
    few = [row for row in published_benchmarks(ROOT) if row.id in (ROW, "lip-resnet50os8", "cityscapes-resnet50os8")]
    monkeypatch.setattr(rows, "published_benchmarks", lambda root: tuple(few))


def test_rows_takes_those_whose_data_is_here_and_lists_why_not_the_others(root: Path, few_rows, capsys) -> None:
    (root / "lip").mkdir()
    edit_yaml(root / "params.yaml", sources={"lip": "lip", "ade20k": "/nowhere"})
    run_rows(root, dry_run=True)
    text = capsys.readouterr().out
    assert "-S 'benchmarks=[lip-resnet50os8]'" in text
    left_out = text.partition("left out:")[2]
    assert f"{ROW}: params.yaml: sources.ade20k: /nowhere: no such file or folder" in left_out
    assert "cityscapes-resnet50os8: cityscapes: not on this machine" in left_out


def test_rows_without_any_data_is_an_error_with_the_remedy(root: Path, few_rows) -> None:
    with pytest.raises(PipelineError, match=r"no published row can be evaluated:\n(.*\n){3}Name a dataset's folder"):
        run_rows(root, dry_run=True)


def test_data_from_a_source_that_is_no_longer_named_does_not_count(root: Path, few_rows) -> None:
    write_json(Layout(root).raw("lip") / ".fetched.json", {"source": "/old/place"})
    with pytest.raises(PipelineError, match=r"the copy here came from /old/place, which `sources` no longer names"):
        run_rows(root, dry_run=True)


def test_a_row_leaves_the_workspace_as_it_was_and_gains_an_experiment_and_its_report(tmp_path: Path, capsys) -> None:
    """A real repository whose only stage writes the report; the second run replaces the experiment."""

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    write_yaml(tmp_path / "params.yaml", {"benchmarks": ["a"], "seeds": [0], "ablation": {"mode": None}})
    stage = {
        "cmd": "mkdir -p reports && cat params.yaml > reports/report.html",
        "params": ["benchmarks", "seeds", "ablation"],
        "outs": ["reports/report.html"],
    }
    write_yaml(tmp_path / "dvc.yaml", {"stages": {"report": stage}})
    run("git", "init", "-q", "-b", "work")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "test")
    run(sys.executable, "-m", "dvc", "init", "-q")
    (tmp_path / ".gitignore").write_text("/reports/report.html\n/reports/published/\n")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    (tmp_path / "new.txt").write_text("uncommitted")
    before = run("git", "status", "--porcelain")
    choice = load_project(tmp_path).model_copy(update={"benchmarks": ("b",)})
    for _ in range(2):
        rows._run(tmp_path, choice, "import", "b-import", dry_run=False)
    assert run("git", "status", "--porcelain") == before
    assert run("git", "branch", "--show-current").strip() == "work"
    assert "b-import" in run(sys.executable, "-m", "dvc", "exp", "list", "--name-only")
    report = (tmp_path / "reports" / "published" / "b-import.html").read_text()
    assert "- b" in report
    assert "mode: import" in report
    assert "dvc exp apply b-import" in capsys.readouterr().out
