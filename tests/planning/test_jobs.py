"""How the command `run` divides a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.config.schema import RuntimeConfig
from pipeline.errors import PipelineError
from pipeline.planning import jobs
from pipeline.planning.jobs import describe_share, machine_shares, run_jobs


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and four GPUs, of which a scheduler may show fewer."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(jobs, "available_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def test_each_training_gets_a_gpu_and_its_part_of_the_cores() -> None:
    shares = machine_shares(RuntimeConfig(), 4)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0", "1", "2", "3"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"2"}
    assert describe_share(shares[0]) == "1 GPU and 2 threads"


def test_trainings_on_two_devices_get_two_of_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
    shares = machine_shares(RuntimeConfig(devices=2), 2)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["7,5", "3,1"]


def test_more_trainings_than_gpus_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(PipelineError, match=r"--jobs 3: .* take 6, and 4 are visible; use --jobs 2 or fewer"):
        machine_shares(RuntimeConfig(devices=2), 3)


def test_on_the_cpu_only_cores_are_divided_and_a_chosen_number_of_threads_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert machine_shares(RuntimeConfig(device="cpu"), 16) == [{"OMP_NUM_THREADS": "1"}] * 16
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine_shares(RuntimeConfig(device="cpu"), 2) == [{"OMP_NUM_THREADS": "3"}] * 2


@pytest.mark.parametrize("command", ["nosuchcmd", "./nosuchcmd"])
def test_a_launcher_that_does_not_exist_is_refused_before_any_work(tmp_path: Path, command: str) -> None:
    with pytest.raises(PipelineError, match=rf"--launcher: {command}: no such command; install it, correct it"):
        run_jobs(tmp_path, 2, [command, "--option"])
