"""The commands `row` and `rows`: what they say before they start, what they refuse, what they hand to DVC."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT, edit_yaml, write_yaml

from pipeline.config import benchmark_ids, load_benchmark, load_project
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.planning.row_commands import chosen_so_far, run_row, run_rows
from pipeline.planning.row_run import choose, execute, save_command
from pipeline.results.published import changed_keys, published_benchmarks, published_rows

ROW = "ade20k-resnet50os8"
CHECKPOINT = "https://github.com/SegmentationBLWX/modelstore/releases/download/ssseg_memorynet/deeplabv3_r50_ade20k.pth"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The project's own params.yaml and params/, and nothing else."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def _said(root: Path, capsys: pytest.CaptureFixture[str], row_id: str = ROW, **options: object) -> dict[str, str]:
    """The lines of a dry run by their labels; a line without one continues the one before."""
    run_row(root, row_id, **{"mode": "import", "seeds": None, "dry_run": True} | options)
    lines: dict[str, str] = {}
    label = ""
    for line in capsys.readouterr().out.splitlines():
        label = line[2:12].strip() or label if line.startswith("  ") else line.split(":")[0]
        lines[label] = f"{lines.get(label, '')} {line[13:] if line.startswith('  ') else line}".strip()
    return lines


# Which rows there are


def test_there_are_18_rows_and_their_baselines_are_apart():
    benchmarks = published_benchmarks(ROOT)
    rows = published_rows(benchmarks)
    assert len(rows) == 18
    assert {row.dataset.name for row in rows} == {"ade20k", "cityscapes", "cocostuff10k", "lip"}
    assert all(b.id.startswith("base-") for b in benchmarks if b not in rows)


def test_only_what_makes_a_number_counts_as_a_change():
    file = load_benchmark(ROOT, ROW)
    assert changed_keys(file, load_benchmark(ROOT, ROW, {"mode": "train", "description": "mine"})) == []
    ablation = {"memory": {"strategy": "mean"}, "encoder": {"options": {"x": 1}}}
    assert changed_keys(file, load_benchmark(ROOT, ROW, ablation)) == ["encoder.options.x", "memory.strategy"]


@pytest.mark.parametrize(
    ("typo", "near"), [("ade20k-resnet50", ROW), ("cityscape-resnet50os8", "cityscapes-resnet50os8")]
)
def test_unknown_row_names_the_nearest(root, typo, near):
    with pytest.raises(PipelineError, match=f"{typo}: no published row; did you mean `{near}`"):
        run_row(root, typo, "import", None, dry_run=True)


# What is said


def test_an_import_says_data_weights_memory_time_and_disk_each_with_its_basis(root, capsys):
    said = _said(root, capsys)
    assert said[ROW] == f"{ROW}: evaluate the published checkpoint"
    assert said["published"].startswith("mIoU 44.39 single scale and 45.97 ms+flip (model zoo)")
    assert (
        "20210 train, 2000 val images; archives about 0.97 GB as announced; absent: will be downloaded" in said["data"]
    )
    assert said["weights"] == f"download of about 0.37 GB (4 bytes per parameter): {CHECKPOINT}"
    assert "GiB of GPU memory for 8 images of 512x683 at once (runtime.evaluation_batch)" in said["evaluation"]
    assert "2000 images of" in said["evaluation"]
    assert "at an assumed 20 TFLOP/s" in said["evaluation"]
    assert "fragmentation" in said["memory"]
    assert "archives, unpacked, and in the prepared form" in said["disk"]
    assert said["then"].endswith(f"seeds: [0]; dvc repro && dvc exp save --force --name {ROW}-import")
    assert said["note"] == "memory and time are estimates; nothing was measured"
    assert "training" not in said


def test_a_training_says_the_memory_of_a_step_and_the_time_of_all_iterations(root, capsys):
    said = _said(root, capsys, mode="train", seeds=[3, 4])
    assert said[ROW] == f"{ROW}: train from imagenet:resnet50_v1c, seeds 3, 4"
    assert "16 crops of 512x512" in said["training"]
    assert "activations kept for the backward pass" in said["training"]
    assert "for each of 2 seeds: 164190 iterations of" in said["training"]
    assert "resnet50_v1c-2cccc1ad.pth" in said["weights"]
    assert "seeds: [3, 4] and ablation.mode: train" in said["then"]


def test_what_is_on_this_machine_is_not_downloaded(root, capsys):
    (root / "ade").mkdir()
    (root / "mine.pth").touch()
    edit_yaml(root / "params.yaml", sources={"ade20k": "ade"}, weights={ROW: "mine.pth"})
    said = _said(root, capsys)
    assert said["data"].endswith("present: ade")
    assert said["weights"] == "present: mine.pth"
    assert "(the prepared form)" in said["disk"]


def test_a_recorded_weight_file_has_its_size_from_the_record_and_is_found_where_it_was_put(root, capsys):
    lock = {ROW: {"url": CHECKPOINT, "bytes": 123_000_000, "sha256": "0" * 64}}
    Layout(root).weights_lock.write_text(json.dumps(lock))
    assert "0.12 GB (recorded in weights.lock.json)" in _said(root, capsys)["weights"]
    path = Layout(root).weights / "ssseg_memorynet" / "deeplabv3_r50_ade20k.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert _said(root, capsys)["weights"] == "present: data/raw/weights/ssseg_memorynet/deeplabv3_r50_ade20k.pth"


def test_a_declared_part_is_called_one(root, capsys):
    (root / "ade").mkdir()
    edit_yaml(root / "params.yaml", sources={"ade20k": {"path": "ade", "images": {"train": 3, "val": 2}}})
    said = _said(root, capsys)
    assert "3 train, 2 val images" in said["data"]
    assert "its numbers are not comparable" in said["data"]
    assert "2 images of" in said["evaluation"]


def test_an_ablation_that_changes_the_row_is_pointed_out(root, capsys):
    edit_yaml(root / "params.yaml", ablation={"memory": {"strategy": "mean"}})
    assert _said(root, capsys)["ablation"] == "params.yaml changes memory.strategy: the row will not be judged"


# What is refused


def test_data_that_no_program_can_fetch_is_asked_for_before_anything_changes(root):
    before = (root / "params.yaml").read_text()
    with pytest.raises(PipelineError, match=r"cityscapes: .*set `sources: \{cityscapes: PATH\}` in params.yaml"):
        run_row(root, "cityscapes-resnet50os8", "import", None, dry_run=False)
    assert (root / "params.yaml").read_text() == before


def test_a_configured_path_that_does_not_exist_is_an_error(root):
    edit_yaml(root / "params.yaml", sources={"ade20k": "/nowhere"})
    with pytest.raises(PipelineError, match=r"sources.ade20k: /nowhere: no such file or folder"):
        run_row(root, ROW, "import", None, dry_run=True)


def test_an_import_with_several_seeds_is_an_error(root):
    with pytest.raises(PipelineError, match="a published checkpoint has no seeds"):
        run_row(root, ROW, "import", [0, 1], dry_run=True)


def test_a_repeated_seed_is_an_error(root):
    with pytest.raises(PipelineError, match="--seeds: 3 is listed more than once; list each seed once"):
        run_row(root, ROW, "train", [3, 4, 3], dry_run=True)


# Several rows


def test_rows_takes_those_whose_data_is_here_and_says_why_not_the_others(root, capsys):
    (root / "lip").mkdir()
    # a small set of files keeps this quick; which models they are does not matter here
    for name in benchmark_ids(root):
        if not name.startswith("base-") and name not in ("lip-resnet50os8", ROW, "cityscapes-resnet50os8"):
            (root / "params" / f"{name}.yaml").unlink()
    edit_yaml(root / "params.yaml", sources={"lip": "lip", "ade20k": "/nowhere"})
    run_rows(root, dry_run=True)
    text = capsys.readouterr().out
    assert "benchmarks: [lip-resnet50os8], seeds: [0]" in text
    assert f"left out: {ROW}" in text
    assert "params.yaml: sources.ade20k: /nowhere: no such file or folder" in text
    assert "data absent: neither `sources: {cityscapes: ...}` in params.yaml nor data/raw/cityscapes" in text


def test_rows_without_any_data_is_an_error_with_the_remedy(root):
    with pytest.raises(PipelineError, match=r"no published row can be run:\n(.*\n){18}Name a dataset's folder"):
        run_rows(root, dry_run=True)


def test_data_that_came_from_a_source_no_longer_named_does_not_count(root):
    write_yaml(Layout(root).raw("ade20k") / ".fetched.json", {})
    (Layout(root).raw("ade20k") / ".fetched.json").write_text(json.dumps({"source": "/old/place"}))
    with pytest.raises(PipelineError, match=r"it came from /old/place, which params\.yaml no longer names"):
        run_rows(root, dry_run=True)


# What DVC gets


def test_choosing_a_row_leaves_comments_and_other_keys_alone(root):
    before = (root / "params.yaml").read_text()
    choose(root, [ROW], [0], "import")
    text = (root / "params.yaml").read_text()
    project = load_project(root)
    assert (project.benchmarks, project.seeds) == ((ROW,), (0,))
    assert [line for line in text.splitlines() if "#" in line] == [line for line in before.splitlines() if "#" in line]
    assert yaml.safe_load(text) == yaml.safe_load(before) | {"benchmarks": [ROW], "seeds": [0]}


def test_what_was_chosen_before_can_be_chosen_again(root):
    before = load_project(root)
    said = yaml.safe_load("{" + chosen_so_far(before).replace("ablation.mode", "mode") + "}")
    choose(root, [ROW], [3, 4], "train")
    choose(root, said["benchmarks"], said["seeds"], said["mode"] or "import")
    after = load_project(root)
    assert (after.benchmarks, after.seeds) == (before.benchmarks, before.seeds)
    assert after.ablation.get("mode") == before.ablation.get("mode")


def test_a_mode_is_set_for_a_training_and_taken_back_for_an_import(root):
    choose(root, [ROW], [0, 1], "train")
    assert load_benchmark(root, ROW, load_project(root).ablation).mode == "train"
    choose(root, [ROW], [0], "import")
    assert load_benchmark(root, ROW, load_project(root).ablation).mode == "import"


def test_the_experiment_holds_the_record_of_weight_files_once_there_is_one(root):
    plain = ["dvc", "exp", "save", "--force", "--name", "x-import"]
    assert save_command(root, "x-import") == plain
    Layout(root).weights_lock.write_text("{}")
    assert save_command(root, "x-import") == [*plain, "--include-untracked", "weights.lock.json"]


def test_a_real_repository_keeps_its_branch_and_gains_the_experiment_whatever_else_is_uncommitted(tmp_path):
    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    write_yaml(tmp_path / "params.yaml", {"benchmarks": ["a"], "seeds": [0]})
    stage = {"matrix": {"item": "${benchmarks}"}, "cmd": "echo ${item.item} > ${item.item}", "outs": ["${item.item}"]}
    write_yaml(tmp_path / "dvc.yaml", {"stages": {"train": stage}})
    run("git", "init", "-q", "-b", "work")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "test")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    (tmp_path / "new.txt").write_text("uncommitted")
    choose(tmp_path, ["b"], [0], "import")
    execute(tmp_path, "b-import")
    execute(tmp_path, "b-import")  # again: nothing to do, and the name may be taken
    assert (tmp_path / "b").read_text() == "b\n"
    assert run("git", "branch", "--show-current").strip() == "work"
    assert "b-import" in run(sys.executable, "-m", "dvc", "exp", "list", "--name-only")
    write_yaml(tmp_path / "dvc.yaml", {"stages": {"train": stage | {"cmd": "exit 3"}}})
    with pytest.raises(PipelineError, match="`dvc repro` exited with"):
        execute(tmp_path, "b-import")
