"""Full disks, missing rights, kills, damaged files, losses that are not finite: one clear message, and nothing lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.failing import NOBODY, ended, files_up_to, interrupted_at, killed_at, without_rights
from helpers.model_benchmarks import small_benchmark, trainer_of
from helpers.model_benchmarks import train_tiny as train
from helpers.project import edit_yaml, make_project
from torch import Tensor, nn

from pipeline.config import load_project, load_resolved
from pipeline.datasets import get_dataset, prepare
from pipeline.datasets.download import download
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.sources import digits
from pipeline.errors import PipelineError, disk_problem
from pipeline.evaluation import score as evaluation
from pipeline.layout import Layout
from pipeline.models.segmentor import SegmentorOutput
from pipeline.planning.plan import write_plan
from pipeline.training import step
from pipeline.training.state import load_state
from pipeline.training.step import training_step

BENCHMARK = "tiny-fcn-mcibi"
SCENES = {"train": 40, "val": 4, "test": 12}
RUNTIME = {"device": "cpu", "workers": 0, "evaluation_batch": 1, "mlflow": False, "log_every": 5, "save_every": 4}


@pytest.fixture(scope="module", autouse=True)
def _few_scenes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "SCENES", SCENES)
        yield


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after preprocess, with ten iterations per epoch. Copy it before changing it."""
    root = make_project(tmp_path_factory.mktemp("ready") / "project")
    layout, spec = Layout(root), get_dataset("digits", SCENES)
    edit_yaml(root / "params.yaml", runtime=RUNTIME)
    edit_yaml(root / "params" / f"{BENCHMARK}.yaml", schedule={"epochs": 2, "batch_size": 4, "validate_every": 1})
    write_plan(root, layout.plan)
    download(spec, layout.raw("digits"), None, layout.source("digits"))
    prepare.prepare(spec, layout.raw("digits"), layout.prepared("digits"))
    return root


@pytest.fixture
def root(ready: Path, tmp_path: Path) -> Path:
    shutil.copytree(ready, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="module")
def finished(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained and evaluated without any trouble."""
    root = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(ready, root)
    assert ended(lambda: train(root)).status == 0
    assert ended(lambda: evaluate(root)).status == 0
    return root


def evaluate(root: Path) -> None:
    benchmark = load_resolved(Layout(root).resolved_for("evaluate", BENCHMARK))
    evaluation.evaluate_benchmark(root, benchmark, 0, load_project(root).runtime)


def preprocess(root: Path) -> None:
    prepare.prepare(get_dataset("digits", SCENES), Layout(root).raw("digits"), Layout(root).prepared("digits"))


def fetch(root: Path) -> None:
    download(get_dataset("digits", SCENES), Layout(root).raw("digits"), None, Layout(root).source("digits"))


def weights(root: Path) -> bytes:
    return (Layout(root).train(BENCHMARK, 0) / "last.safetensors").read_bytes()


def state_file(root: Path) -> Path:
    (path,) = (root / "runs" / "state" / BENCHMARK).glob("*/state.pt")
    return path


def saved_iteration(root: Path) -> int:
    return load_state(state_file(root).parent)["progress"]["iteration"]


# --- kills ------------------------------------------------------------------------------------------------------------


def test_a_download_that_is_killed_is_made_whole_by_the_next(ready: Path, root: Path) -> None:
    shutil.rmtree(root / "data")
    assert ended(lambda: fetch(root), killed_at(digits, "compose_scene", 20)).status == -9
    assert not Layout(root).source("digits").exists()
    fetch(root)
    assert Layout(root).source("digits").read_bytes() == Layout(ready).source("digits").read_bytes()


def test_a_preprocessing_that_is_killed_leaves_no_half_of_a_dataset(ready: Path, root: Path) -> None:
    shutil.rmtree(Layout(root).prepared("digits"))
    assert ended(lambda: preprocess(root), killed_at(prepare, "write_png", 20)).status == -9
    assert not Layout(root).prepared("digits").exists()
    preprocess(root)
    assert Prepared(Layout(root).prepared("digits")).info == Prepared(Layout(ready).prepared("digits")).info


def test_an_evaluation_that_is_killed_gives_the_same_scores_when_run_again(root: Path, finished: Path) -> None:
    shutil.copytree(Layout(finished).train(BENCHMARK, 0), Layout(root).train(BENCHMARK, 0))
    assert ended(lambda: evaluate(root), killed_at(evaluation, "write_png", 4)).status == -9
    metrics = Layout(root).evaluate(BENCHMARK, 0) / "metrics.json"
    assert not metrics.exists()
    assert ended(lambda: evaluate(root)).status == 0
    assert metrics.read_bytes() == (Layout(finished).evaluate(BENCHMARK, 0) / "metrics.json").read_bytes()


# --- disks and rights -------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_last_state_and_the_training_goes_on_from_it(root: Path, finished: Path) -> None:
    ended(lambda: train(root), killed_at(step, "poly_lr", 7))
    before = state_file(root).read_bytes()
    stopped = ended(lambda: train(root), files_up_to(100_000))
    assert stopped.status == 1
    assert stopped.said.splitlines()[-1].startswith(f"error: {state_file(root)}: File too large; raise the limit")
    assert state_file(root).read_bytes() == before
    assert [path.name for path in state_file(root).parent.iterdir()] == ["state.pt"]
    assert ended(lambda: train(root)).status == 0
    assert weights(root) == weights(finished)


def test_results_that_do_not_fit_the_disk_are_named(root: Path, finished: Path) -> None:
    shutil.copytree(Layout(finished).train(BENCHMARK, 0), Layout(root).train(BENCHMARK, 0))
    shutil.rmtree(Layout(root).prepared("digits"))
    stopped = ended(lambda: preprocess(root), files_up_to(100))
    assert stopped.status == 1
    assert stopped.said.startswith(f"error: {Layout(root).prepared('digits')}.part/")
    assert "File too large; raise the limit on the size of files (`ulimit -f`), then run the same" in stopped.said
    assert not Layout(root).prepared("digits").exists()
    preprocess(root)
    for stage, name in ((train, "state.pt"), (evaluate, "details/confusion.npz")):
        stopped = ended(lambda stage=stage: stage(root), files_up_to(500))
        assert stopped.status == 1
        assert stopped.said.splitlines()[-1].startswith(f"error: {root}/runs/")
        assert f"{name}: File too large" in stopped.said
        assert "Traceback" not in stopped.said


@pytest.mark.parametrize(("stage", "folder"), [(fetch, "data/raw"), (preprocess, "data/prepared"), (train, "runs")])
def test_a_folder_without_the_right_to_write_is_named(root: Path, stage: Any, folder: str) -> None:
    if stage is not train:
        shutil.rmtree(Layout(root).raw("digits") if stage is fetch else Layout(root).prepared("digits"))
    stopped = ended(lambda: stage(Path()), without_rights(root))
    assert stopped.status == 1
    (said,) = (line for line in stopped.said.splitlines() if not line.startswith("no commit will be recorded"))
    assert re.match(rf"error: \S*{folder}[/:]", said)
    assert "Permission denied; give yourself the permission, then run the same command again" in said


def test_a_file_where_a_folder_is_needed_is_named(root: Path) -> None:
    (root / "runs" / "state").write_text("")
    stopped = ended(lambda: train(root))
    assert f"error: {root / 'runs' / 'state'}" in stopped.said
    assert "another file or folder is in the way" in stopped.said


def test_mistakes_of_the_program_keep_their_traceback() -> None:
    assert disk_problem(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "file")) is None
    assert "Traceback" in ended(lambda: Path("/nowhere").read_text()).said


# --- images -----------------------------------------------------------------------------------------------------------


def test_a_damaged_image_saves_the_training_which_ends_the_same_once_it_is_mended(root: Path, finished: Path) -> None:
    sixth_batch = np.random.default_rng([0, 1]).permutation(SCENES["train"])[20:24]
    image = Layout(root).prepared("digits") / "images" / "train" / f"train_{sixth_batch[0]:04d}.png"
    content = image.read_bytes()
    image.write_bytes(b"rubbish")
    stopped = ended(lambda: train(root))
    image.write_bytes(content)
    assert stopped.status == 1
    assert stopped.said.splitlines()[-1] == (
        f"error: {image}: cannot be decoded as an image (7 bytes); delete this file and run `dvc repro`: preprocess "
        "recreates it and the run resumes"
    )
    assert saved_iteration(root) == 5
    assert ended(lambda: train(root)).status == 0
    assert weights(root) == weights(finished)


def test_an_image_without_the_right_to_read_is_named(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        public = shutil.copytree(root, Path(folder, "project"))
        image = Layout(public).prepared("digits") / "images" / "train" / "train_0007.png"
        image.chmod(0)
        states = public / "runs" / "state"
        states.mkdir(parents=True, exist_ok=True)
        states.chmod(0o777)
        stopped = ended(lambda: train(public), lambda: os.geteuid() or os.seteuid(NOBODY))
    assert "train_0007.png: cannot be read (Permission denied)" in stopped.said


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_keeps_batch_model_and_the_last_good_state(root: Path) -> None:
    plan = Layout(root).resolved_for("train", BENCHMARK)
    edit_yaml(plan, optimizer={"lr": 1e30})
    edit_yaml(root / "params.yaml", runtime=RUNTIME | {"save_every": 1})
    stopped = ended(lambda: train(root))
    assert stopped.status == 1
    assert "error: tiny-fcn-mcibi: loss is nan" in stopped.said
    record = state_file(root).with_name("failed_step.0.pt")
    assert f"{record} keeps this batch and the model that met it" in stopped.said
    kept = torch.load(record, weights_only=True)
    ((images, labels),) = kept["parts"]
    assert (images.shape, labels.shape) == ((4, 3, 32, 32), (4, 32, 32))
    assert f"Images of the batch: {', '.join(kept['ids'])}\n" in stopped.said
    state = load_state(state_file(root).parent)
    assert kept["iteration"] == state["progress"]["iteration"] == 1
    parameters = [name for name in kept["model"] if name.endswith("weight")]
    assert all(torch.equal(kept["model"][name], state["model"][name]) for name in parameters)


class _Rooted(nn.Module):
    """The square root of zero: a finite loss whose gradient is not."""

    memory = None

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, images: Tensor) -> SegmentorOutput:
        return SegmentorOutput(self.conv(images).sqrt(), None, (), images)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights() -> None:
    model = _Rooted()
    trainer = trainer_of(small_benchmark("fcn", None), model)
    batch = torch.ones(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    with pytest.raises(PipelineError, match=r"the gradient's norm (nan|inf) at iteration 3 \(epoch 1\). Lower"):
        training_step(trainer, [batch], iteration=3, epoch=1)
    assert not model.conv.weight.any()


# --- files of somebody else -------------------------------------------------------------------------------------------


def test_a_damaged_state_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"rubbish")
    with pytest.raises(PipelineError, match=r"state.pt: not readable as the state of a training; delete it"):
        load_state(tmp_path)


def test_damaged_weights_stop_the_evaluation_with_their_name(root: Path, finished: Path) -> None:
    shutil.copytree(Layout(finished).train(BENCHMARK, 0), Layout(root).train(BENCHMARK, 0))
    path = Layout(root).train(BENCHMARK, 0) / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    stopped = ended(lambda: evaluate(root))
    assert f"error: {path}: damaged" in stopped.said
    assert "delete it and run `dvc repro`" in stopped.said


def test_an_interrupt_is_one_line_with_the_way_on(root: Path) -> None:
    stopped = ended(lambda: train(root), interrupted_at(step, "poly_lr", 3))
    assert stopped.status == 130
    assert stopped.said.splitlines()[-1] == "interrupted: stopped after iteration 3; run again to resume"
    assert saved_iteration(root) == 3
