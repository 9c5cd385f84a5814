"""`runtime.compile`: the compiled network trains as the eager one, is compiled once, and says where it cannot be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers.model_benchmarks import small_benchmark, trainer_of
from helpers.project import edit_yaml
from torch import Tensor
from torch._dynamo.utils import counters

from pipeline.config import Benchmark, load_benchmark, load_project
from pipeline.config.limits import compile_problem
from pipeline.config.schema import RuntimeConfig
from pipeline.errors import PipelineError
from pipeline.models import build_segmentor
from pipeline.planning.plan import plan_benchmarks
from pipeline.runtime.distributed import Ranks, arithmetic
from pipeline.training import train
from pipeline.training.step import Trainer, compiled, training_step
from pipeline.training.train import train_benchmark

CLASSES = 5


def three_steps(config: Benchmark, backend: str | None) -> tuple[list[Tensor], Trainer]:
    """Losses of three steps, the consistency loss among them, and what was trained; backend None: not compiled."""
    torch.manual_seed(0)
    model = build_segmentor(config, CLASSES, pretrained=False).train()
    trainer = trainer_of(config, model, None if backend is None else compiled(model, backend))
    generator = torch.Generator().manual_seed(1)
    losses = []
    for iteration in range(3):
        images = torch.randn(2, 3, 64, 64, generator=generator)
        labels = torch.randint(CLASSES, (2, 64, 64), generator=generator)
        losses.append(training_step(trainer, [(images, labels)], iteration, epoch=2)["loss"])
    return losses, trainer


def with_memory(framework: str) -> Benchmark:
    config = small_benchmark(framework, {})
    return config.model_copy(update={"loss": config.loss.model_copy(update={"consistency": 1.0})})


def test_compiled_steps_read_the_updated_memory_and_compile_once(tiny_benchmark: Benchmark) -> None:
    encoder = tiny_benchmark.encoder.model_copy(update={"depth": 2})
    config = with_memory("fcn").model_copy(update={"encoder": encoder})
    expected, eager = three_steps(config, None)
    torch.compiler.reset()
    counters.clear()
    found, trainer = three_steps(config, "aot_eager")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(trainer.model.memory.memory, eager.model.memory.memory, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert trainer.model.state_dict().keys() == eager.model.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["fcn", "pspnet", "deeplabv3", "ocrnet"])
def test_every_framework_compiles_in_one_graph(framework: str) -> None:
    config = with_memory(framework)
    expected, _ = three_steps(config, None)
    torch.compiler.reset()
    counters.clear()
    found, _ = three_steps(config, "aot_eager")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_gradient_through_the_updated_memory_cannot_be_compiled(project: Path) -> None:
    edit_yaml(project / "params.yaml", runtime={"compile": True}, ablation={"memory": {"gradient": "updated"}})
    problem = plan_benchmarks(project, load_project(project))[1][0]
    assert re.search(r"runtime.compile: tiny-fcn-mcibi has memory.gradient: updated.*exact", problem)
    benchmark = load_benchmark(project, "tiny-fcn-mcibi", {"memory": {"gradient": "updated"}})
    with pytest.raises(PipelineError, match=r"tiny-fcn-mcibi has memory.gradient: updated"):
        train_benchmark(project, benchmark, 0, load_project(project).runtime, lambda step, values: None)


def test_several_devices_cannot_train_compiled(tiny_benchmark: Benchmark) -> None:
    assert "2 devices on 1 nodes" in compile_problem(tiny_benchmark, RuntimeConfig(compile=True, devices=2))


def test_nor_can_ranks_that_another_launcher_started(
    tiny_benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "ranks", lambda: Ranks(0, 2))
    with pytest.raises(PipelineError, match="2 devices on 1 nodes"):
        train_benchmark(tmp_path, tiny_benchmark, 0, RuntimeConfig(compile=True), lambda step, values: None)


def test_a_compiled_training_is_another_run() -> None:
    assert arithmetic(RuntimeConfig(compile=True)) == "float32, compiled"
    assert arithmetic(RuntimeConfig(compile=True, accumulate=2)) == "float32, compiled, 1 devices, 2 parts on each"
