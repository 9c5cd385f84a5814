"""Published rows end to end: one row per dataset, on miniatures, from files in the authors' format to the report.

DVC runs one of them; MCIBI++'s is run by the same functions in this process, which has torch imported already; those of
the other datasets are slow.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.miniature import BUILDERS, source
from helpers.project import edit_yaml
from helpers.published_files import published_state, write_checkpoint
from helpers.repro import make_repository, run, stages_run
from helpers.rows import THIN, make_rows_project, resolved, small_inference
from PIL import Image
from safetensors.torch import load_file

from pipeline.config import load_benchmark, load_project
from pipeline.datasets import get_dataset
from pipeline.evaluation.score import evaluate_benchmark
from pipeline.reporting.report import write_report
from pipeline.training.importing import import_benchmark

IMAGES = {
    "ade20k": {"train": 2, "val": 2},
    "cocostuff10k": {"train": 2, "test": 2},
    "cityscapes": {"train": 2, "val": 2, "test": 2},
    "lip": {"train": 2, "val": 2},
}
ROWS = {dataset: f"{dataset}-resnet50os8" for dataset in IMAGES}
BY_DVC = ROWS["cityscapes"]
DISTRIBUTION = "pp-lip-resnet50os8-ppm"  # MCIBI++, on the miniature of LIP
QUICK = (BY_DVC, DISTRIBUTION)


def each_row(rows: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(r, marks=[pytest.mark.slow] * (r not in QUICK)) for r in rows])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A DVC repository with the results of the quick rows and their report, and DVC's output in repro.log."""
    folder = tmp_path_factory.mktemp("rows")
    small = small_inference()
    windows = {"resize": {"size": [96, 96]}, "crop": [64, 64], "stride": [32, 32]}
    root = make_rows_project(
        folder / "project",
        ade20k_resnet50os8={"inference": small},  # its network is the published one, the others' heads are thin
        cocostuff10k_resnet50os8={"inference": small, "segmentor": THIN},
        cityscapes_resnet50os8={"inference": small, "segmentor": THIN},
        lip_resnet50os8={"inference": {"resize": {"size": [64, 64]}}, "segmentor": THIN},
        pp_lip_resnet50os8_ppm={"inference": {"resize": {"size": [64, 64]}, "ms_flip": windows}, "segmentor": THIN},
    )
    choose(root, QUICK)
    make_repository(root, "published rows")
    run(root, "dvc", "config", "cache.type", "hardlink")  # the weights are large
    (root / "repro.log").write_text(run(root, "dvc", "repro", f"evaluate-msflip@{BY_DVC}-0"))
    runtime = load_project(root).runtime
    import_benchmark(root, resolved(root, "train", DISTRIBUTION), 0, runtime)
    evaluate_benchmark(root, resolved(root, "evaluate", DISTRIBUTION), 0, runtime)
    write_report(root, root / "reports")
    yield root
    shutil.rmtree(folder)


def choose(root: Path, rows: Sequence[str]) -> None:
    """Have params.yaml name the rows, a checkpoint of each and a miniature of each of their datasets."""
    folder, sources = root.parent, {}
    for dataset in {load_benchmark(root, row).dataset.name for row in rows}:
        shutil.rmtree(folder / dataset, ignore_errors=True)
        (folder / dataset).mkdir()
        sources[dataset] = source(BUILDERS[dataset](folder / dataset, **IMAGES[dataset]), **IMAGES[dataset])
    for row in rows:
        if not checkpoint(root, row).exists():
            write_checkpoint(checkpoint(root, row), published_state(load_benchmark(root, row)))
    weights = {row: str(checkpoint(root, row)) for row in rows}
    edit_yaml(root / "params.yaml", benchmarks=list(rows), sources=sources, weights=weights)


@pytest.fixture(scope="module")
def all_rows(repository: Path) -> list[str]:
    """The stages that DVC runs for one row of each dataset, after those of `repository`."""
    choose(repository, [*ROWS.values(), DISTRIBUTION])
    return stages_run(run(repository, "dvc", "repro"))


@pytest.fixture
def evaluated(request: pytest.FixtureRequest, repository: Path, row: str) -> Path:
    """`repository` with the results of `row`."""
    if row not in QUICK:
        request.getfixturevalue("all_rows")
    return repository


def read(repository: Path, *parts: str) -> dict:
    return json.loads(repository.joinpath("runs", *parts).read_text())


def checkpoint(repository: Path, row: str) -> Path:
    return repository.parent / f"{row}.pth"


def test_dvc_runs_every_stage_of_a_row(repository: Path) -> None:
    ran = stages_run((repository / "repro.log").read_text())
    assert ran == ["plan", "download", "preprocess", f"train@{BY_DVC}-0", f"evaluate-msflip@{BY_DVC}-0"]


@each_row([*ROWS.values(), DISTRIBUTION])
def test_an_imported_checkpoint_is_where_a_trained_one_would_be(evaluated: Path, row: str) -> None:
    folder, file = evaluated / "runs" / "train" / row / "0", checkpoint(evaluated, row)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["mode"], summary["epochs"], summary["iterations"]) == ("import", 0, 0)
    assert (summary["best"], summary["final"], summary["untouched_memory"]) == (None, None, [])
    assert summary["checkpoint"] == {
        "url": None,
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "generation": "local",
    }
    assert (folder / "last.safetensors").read_bytes() == (folder / "best.safetensors").read_bytes()
    assert json.loads((folder / "cost.json").read_text())["seconds_per_iteration"] is None
    curves = evaluated / "runs" / "curves" / row / "0"
    assert pd.read_csv(curves / "history.csv").empty
    assert list(pd.read_csv(curves / "validation.csv")) == ["epoch", "iteration", "miou", "pixel_accuracy"]


@each_row(ROWS.values())
def test_the_memory_is_that_of_the_file(evaluated: Path, row: str) -> None:
    dataset = row.partition("-")[0]
    published = published_state(load_benchmark(evaluated, row))["memory_module.memory"].numpy()
    folder = evaluated / "runs" / "train" / row / "0"
    with np.load(folder / "memory.npz") as memory:
        assert sorted(memory) == ["final", "touched"]
        assert np.array_equal(memory["final"], published)
        assert memory["touched"].all()
    assert np.array_equal(load_file(folder / "last.safetensors")["memory.memory"].numpy(), published)
    assert published.shape == (len(get_dataset(dataset).classes), 1, 512 if dataset == "ade20k" else THIN["channels"])


def test_a_distribution_memory_is_that_of_the_file_and_its_row_is_in_the_report(repository: Path) -> None:
    published = published_state(load_benchmark(repository, DISTRIBUTION))["memory_module.memory"].numpy()
    weights = load_file(repository / "runs" / "train" / DISTRIBUTION / "0" / "last.safetensors")
    assert published.shape == (20, 2)
    assert np.array_equal(weights["memory.memory"].numpy(), published)
    assert read(repository, "evaluate", DISTRIBUTION, "0", "metrics.json")["images"] == 2
    assert DISTRIBUTION in (repository / "reports" / "report.md").read_text()


@each_row([*(ROWS[dataset] for dataset in ("ade20k", "cocostuff10k", "lip")), DISTRIBUTION])
def test_labelled_rows_are_scored_and_submit_nothing(evaluated: Path, row: str) -> None:
    metrics = read(evaluated, "evaluate", row, "0", "metrics.json")
    assert metrics["submission"] is None
    assert metrics["split"] == ("test" if row.startswith("cocostuff10k") else "val")
    assert metrics["images"] == 2
    assert 0 <= metrics["single_scale"]["miou"] < 0.2


def test_cityscapes_is_scored_on_val_and_writes_archives_for_the_server(repository: Path) -> None:
    folder = repository / "runs" / "evaluate" / ROWS["cityscapes"] / "0"
    metrics = json.loads((folder / "metrics.json").read_text())
    files = {p: f"details/submission_{p}.zip" for p in ("single_scale", "ms_flip")}
    assert metrics["submission"] == {"split": "test", "images": 2, "files": files}
    assert (metrics["split"], metrics["images"]) == ("val", 2)
    ids = set(get_dataset("cityscapes").submission_ids)
    for name in files.values():
        with zipfile.ZipFile(folder / name) as archive:
            assert len(archive.namelist()) == 2
            for member in archive.namelist():
                pixels = np.array(Image.open(io.BytesIO(archive.read(member))))
                assert member.startswith(("berlin_", "bonn_"))
                assert pixels.shape == (64, 128)  # the size of the picture, not of the network's input
                assert set(np.unique(pixels)) <= ids


def test_a_second_repro_does_nothing_and_plots_have_no_errors(repository: Path) -> None:
    assert stages_run(run(repository, "dvc", "repro", f"evaluate-msflip@{BY_DVC}-0")) == []
    assert not json.loads(run(repository, "dvc", "plots", "show", "--json")).get("errors")


@pytest.mark.slow
def test_dvc_runs_all_rows_to_the_report(repository: Path, all_rows: list[str]) -> None:
    others = [row for row in (*ROWS.values(), DISTRIBUTION) if row != BY_DVC]
    expected = sorted(f"{stage}@{row}-0" for stage in ("evaluate-msflip", "train") for row in others)
    assert (all_rows[:3], all_rows[-1]) == (["plan", "download", "preprocess"], "report")
    assert sorted(all_rows[3:-1]) == expected
    assert stages_run(run(repository, "dvc", "repro")) == []
