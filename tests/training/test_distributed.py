"""What several processes compute together is what one computes alone (real gloo processes on the CPU)."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.failing import interrupted_at
from helpers.model_benchmarks import Plain, small_benchmark, train_tiny, trainer_of
from helpers.project import RUNTIME, edit_yaml
from helpers.rank_processes import on_ranks
from helpers.tensors import after_update, features, random_labels
from safetensors.torch import load_file
from torch import nn

from pipeline.config.schema import MemoryConfig, RuntimeConfig
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.errors import PipelineError
from pipeline.evaluation.evaluate import ProtocolCounts, gather_results
from pipeline.layout import Layout
from pipeline.models import FeatureMemory
from pipeline.models.distribution import DistributionMemory
from pipeline.models.segmentor import SegmentorOutput
from pipeline.results.metrics import near_boundaries
from pipeline.runtime.distributed import ranks, wrap
from pipeline.runtime.launch import relaunch_with_torchrun, torchrun_command
from pipeline.training import loop
from pipeline.training.step import training_step

K, C = 5, 6


# --- the memory -------------------------------------------------------------------------------------------------------


def batches(steps=3, images=6):
    """Per step the global batch: class 4 is on its last image only, and its first two images are void."""
    for step in range(steps):
        labels = random_labels((images, 16, 16), K - 1, seed=step)
        labels[:2] = IGNORE_INDEX
        labels[-1, :8] = K - 1
        yield features(images, C, 4, 4, seed=step), labels


def memory_after_updates(rank, world, sync, rule="cosine"):
    torch.manual_seed(0)
    config = small_benchmark("fcn", {"sync": sync}, channels=C, attention_channels=4, auxiliary=[])
    trainer = trainer_of(config, _OnlyMemory(sync, rule).train())  # most of its parameters get no gradient
    for images, labels in batches():
        share = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
        training_step(trainer, [(images[share], labels[share])], iteration=0, epoch=1)
    return trainer.model.memory.memory


class _OnlyMemory(nn.Module):
    """A network whose pixel representations are its input."""

    def __init__(self, sync, rule):
        super().__init__()
        options = {"attention_channels": 4, "fuse_context": False, "sync": sync}
        if rule == "distribution":
            self.memory = DistributionMemory(K, C, **options)
        else:
            self.memory = FeatureMemory(K, C, strategy=rule, **options)
        self.logits = nn.Conv2d(C, K, 1)

    def forward(self, images):
        return SegmentorOutput(self.logits(images), None, (), images)


@pytest.mark.parametrize(("world", "rule"), [(2, "cosine"), (3, "cosine"), (2, "mean"), (2, "distribution")])
def test_memory_of_several_ranks_is_that_of_one_with_the_whole_batch(world, rule, tmp_path):
    alone = memory_after_updates(0, 1, "statistics", rule)
    together = on_ranks(world, tmp_path, memory_after_updates, world, "statistics", rule)
    for memory in together:
        torch.testing.assert_close(memory, alone, rtol=1e-5, atol=1e-6)


def test_the_authors_rule_averages_the_memories_of_the_ranks(tmp_path):
    """A class that only one of two ranks sees first is stored at half its mean."""
    expected = torch.zeros(K, 1, C)
    for images, labels in batches():  # at the first iteration's learning rate the momentum is the configured one
        halves = zip(images.chunk(2), labels.chunk(2), strict=True)
        expected = sum(after_update(expected, *half, MemoryConfig().momentum, "cosine") for half in halves) / 2
    for memory in on_ranks(2, tmp_path, memory_after_updates, 2, "per_rank_mean"):
        torch.testing.assert_close(memory, expected, rtol=1e-5, atol=1e-6)


# --- gradients --------------------------------------------------------------------------------------------------------


def gradients(rank, world, parts):
    """Gradients and loss of a norm-free network after one step on 12 images."""
    torch.manual_seed(0)
    config = small_benchmark("fcn", None)
    model = Plain(K).train()
    trainer = trainer_of(config, model, wrap(model, torch.device("cpu")))
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = random_labels((12, 8, 8), K, seed=2)
    labels[:5] = IGNORE_INDEX  # shares of very different weight, one of them void
    own = slice(rank * 12 // world, (rank + 1) * 12 // world)
    split = list(zip(images[own].chunk(parts), labels[own].chunk(parts), strict=True))
    values = training_step(trainer, split, iteration=0, epoch=1)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return found | {"loss": values["loss"], "norm": values["grad_norm"]}


@pytest.mark.parametrize(("world", "parts"), [(1, 3), (2, 1), (3, 2)])
def test_step_of_several_ranks_and_parts_is_that_of_one(world, parts, tmp_path):
    alone = gradients(0, 1, 1)
    together = [gradients(0, 1, parts)] if world == 1 else on_ranks(world, tmp_path, gradients, world, parts)
    for found in together:
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


# --- evaluation -------------------------------------------------------------------------------------------------------


def a_share_of_counts(rank, world, order):
    ids = order[rank::world]
    counts = ProtocolCounts(np.zeros((2, 2), np.int64))
    for image_id in ids:
        truth = np.tile(np.array([0, 1], np.uint8), (8, int(image_id)))  # (8, 2 * id)
        counts.add(np.roll(truth, 3, axis=0), truth, near_boundaries(truth, truth == IGNORE_INDEX, 2))
    return gather_results((ids, {"single_scale": counts}), order)


def test_counts_of_all_ranks_are_those_of_one_in_the_order_of_the_split(tmp_path):
    order = ["3", "1", "4", "15", "9"]
    alone = a_share_of_counts(0, 1, order)
    main, other = on_ranks(2, tmp_path, a_share_of_counts, 2, order)
    assert other is None
    assert main[0] == alone[0] == order
    assert np.array_equal(main[1]["single_scale"].confusion, alone[1]["single_scale"].confusion)
    assert np.array_equal(main[1]["single_scale"].images, alone[1]["single_scale"].images)


def test_an_image_that_counts_twice_is_an_error():
    counts = {"single_scale": ProtocolCounts(np.zeros((2, 2), np.int64))}
    with pytest.raises(PipelineError, match="2 images were evaluated over all ranks, expected 1, each once"):
        gather_results((["a", "a"], counts), ["a"])


# --- a whole training -------------------------------------------------------------------------------------------------


def a_training(rank, root, stop_after=None):
    """Train tiny-fcn-mcibi on this rank; with `stop_after`, an interrupt arrives on rank 1 during that iteration."""
    logged = []
    if rank == 1 and stop_after is not None:
        interrupted_at(loop, "training_step", stop_after)()
    try:
        train_tiny(root, log=lambda iteration, values: logged.append(iteration))
    except KeyboardInterrupt as stopped:
        return str(stopped)
    return logged


def test_two_ranks_train_and_the_main_one_writes(trainable, tmp_path):
    main, other = on_ranks(2, tmp_path, a_training, trainable)
    assert main == other != []
    summary = json.loads((Layout(trainable).train("tiny-fcn-mcibi", 0) / "summary.json").read_text())
    assert summary["precision"] == "float32, 2 devices, 1 parts on each"


@pytest.mark.slow
def test_an_interrupt_on_one_rank_stops_all_and_the_training_resumes_identically(trainable, tmp_path, capfd):
    interrupted = tmp_path / "interrupted"
    shutil.copytree(trainable, interrupted)
    on_ranks(2, tmp_path, a_training, trainable)
    stopped = on_ranks(2, tmp_path, a_training, interrupted, 4)
    assert stopped == ["stopped after iteration 4; run again to resume"] * 2
    on_ranks(2, tmp_path, a_training, interrupted)
    assert "resuming after iteration 4" in capfd.readouterr().out
    expected, found = (
        load_file(Layout(root).train("tiny-fcn-mcibi", 0) / "last.safetensors") for root in (trainable, interrupted)
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_the_error_of_one_rank_ends_the_stage_with_its_own_message(trainable):
    edit_yaml(trainable / "params.yaml", runtime=RUNTIME | {"devices": 2})
    for image in (trainable / "data/prepared/digits/images/train").glob("*7.png"):
        image.write_bytes(b"broken")
    command = [sys.executable, "-m", "stages.train", "tiny-fcn-mcibi", "0"]
    done = subprocess.run(command, cwd=trainable, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "7.png: cannot be decoded as an image" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: stages.train: one of 2 processes failed")
    assert list((trainable / "runs" / "state").rglob("state.pt"))  # all ranks saved before they stopped


@pytest.mark.slow
def test_the_stage_trains_on_two_devices(trainable):
    edit_yaml(trainable / "params.yaml", runtime=RUNTIME | {"devices": 2})
    subprocess.run([sys.executable, "-m", "stages.train", "tiny-fcn-mcibi", "0"], cwd=trainable, check=True)
    subprocess.run([sys.executable, "-m", "stages.evaluate_msflip", "tiny-fcn-mcibi", "0"], cwd=trainable, check=True)
    together = json.loads((Layout(trainable).evaluate("tiny-fcn-mcibi", 0) / "metrics.json").read_text())
    edit_yaml(trainable / "params.yaml", runtime=RUNTIME)
    subprocess.run([sys.executable, "-m", "stages.evaluate_msflip", "tiny-fcn-mcibi", "0"], cwd=trainable, check=True)
    assert json.loads((Layout(trainable).evaluate("tiny-fcn-mcibi", 0) / "metrics.json").read_text()) == together


# --- starting ---------------------------------------------------------------------------------------------------------


def test_one_device_works_in_the_stage_itself():
    assert not relaunch_with_torchrun(RuntimeConfig(), "stages.train", ["x", "0"])
    assert ranks().world == 1


def test_several_devices_are_started_by_torchrun():
    command = torchrun_command(RuntimeConfig(devices=8), "stages.train", ["x", "0"], {})
    expected = ("-m", "torch.distributed.run", "--nproc-per-node=8", "--standalone", "-m", "stages.train", "x", "0")
    assert tuple(command[1:]) == expected


def test_several_nodes_are_started_by_slurm_or_explained():
    runtime = RuntimeConfig(devices=8, nodes=2)
    slurm = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1"}
    command = torchrun_command(runtime, "stages.train", ["x", "0"], slurm)
    assert command[:4] == ["srun", "--quit-on-interrupt", "--nodes=2", "--ntasks-per-node=1"]
    assert "--rdzv-endpoint=n1:29400" in command
    with pytest.raises(PipelineError, match=r"runtime.nodes: 2 .* outside a Slurm allocation.*--nnodes=2"):
        torchrun_command(runtime, "stages.train", ["x", "0"], {})
