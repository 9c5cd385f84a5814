"""The benchmarks measure what they say. That the authors' toolbox gives our results: test_toolbox.py."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from helpers.markdown import tables
from helpers.project import ROOT

from benchmarks import encoders, gpu
from benchmarks.measure import in_turns, require_close
from benchmarks.rows.training_step import step_case
from pipeline.config.schema import EncoderConfig
from pipeline.models.encoder import build_encoder, check_sizes

CPU = torch.device("cpu")


def test_unequal_results_give_no_ratio() -> None:
    with pytest.raises(RuntimeError, match="memory: differs by"):
        require_close("memory", torch.ones(3), torch.tensor([1.0, 1.0, 1.1]), 1e-3)


_TWO_TENSORS = """
import time
import torch
from benchmarks.measure import extra_memory

before = torch.ones(2**22)  # not counted

def two_tensors():
    held = [torch.ones(2**25) + before.sum() for _ in range(2)]  # 128 MiB each
    time.sleep(0.1)  # memory is sampled, by a thread that other processes may keep waiting

print(extra_memory(two_tensors, torch.device("cpu"))["extra"])
"""


def test_memory_of_a_call_is_what_it_adds() -> None:
    # In a fresh process: one that did much before has free memory that it need not ask for.
    measured = subprocess.run(
        [sys.executable, "-c", _TWO_TENSORS], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert 0.9 * 2**28 < float(measured.stdout) < 1.6 * 2**28


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ssseg") is None, reason="the authors' toolbox is not installed; run `make toolbox`")
def test_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--device", "cpu", "--only", "memory update"]
    done = subprocess.run(
        [*command, "--json", tmp_path / "found.json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    assert "memory update" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["about"]["command"].startswith("python -m benchmarks --device cpu")
    assert found["rows"]["memory update"]["ratio"] > 1
    assert set(found["rows"]["memory update"]["memory"]) == {"ours", "reference"}


@pytest.mark.slow
def test_an_interrupted_training_of_the_gpu_checks_ends_with_equal_weights_on_the_cpu() -> None:
    found = gpu.resume(CPU, seconds=600, epochs=1)
    assert found == {"iterations": 75, "repeated": 0, "resumed": 0}


def test_a_part_that_fails_is_reported_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(device: torch.device, seconds: float) -> dict[str, object]:
        raise RuntimeError(f"nothing on {device} in time")

    monkeypatch.setattr(gpu, "PARTS", {"slow": slow, "quick": lambda device, seconds: {"summary": "all equal"}})
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path), "--device", "cpu", "--parts", "slow,quick"])
    assert gpu.main() == 1
    (table,) = tables((tmp_path / "gpu.md").read_text(encoding="utf-8"))
    assert [row[0] for row in table.cells] == ["slow", "quick"]
    assert table.cells[0][2] == "FAILED: RuntimeError: nothing on cpu in time"
    assert table.cells[1][2] == "summary all equal"
    assert json.loads((tmp_path / "gpu.json").read_text())["quick"]["summary"] == "all equal"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ssseg") is None, reason="the authors' toolbox is not installed; run `make toolbox`")
def test_ratios_come_from_rounds_in_which_both_ran() -> None:
    case = step_case(CPU, 64, rounds=1)
    found = in_turns(case, CPU)
    assert len(found["rounds"]["ours_s"]) == len(found["rounds"]["reference_s"]) == 1
    assert found["ratio"] == pytest.approx(found["reference_s"] / found["ours_s"])


# --- encoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "tu-mobilenetv3_large_100", "tu-hrnet_w18_small", "tu-vit_tiny_patch16_224"]
)
def test_a_row_of_the_table_of_encoders_is_what_is_found_today(name: str) -> None:
    (table,) = tables((ROOT / "docs" / "encoders.md").read_text(encoding="utf-8"))
    (row,) = (tuple(cells) for cells in table.cells if cells[0] == name)
    assert encoders.examine(name) == row


@pytest.mark.slow
def test_every_encoder_that_smp_lists_can_be_built_and_reads_any_size() -> None:
    for name in smp.encoders.get_encoder_names():
        with torch.device("meta"):
            encoder = build_encoder(EncoderConfig(name=name), pretrained=False)
            check_sizes(encoder, name, {(77, 71): "an odd size"})
