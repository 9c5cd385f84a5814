"""Is everything right on a GPU, and how fast is it? All in one call of limited time, see gpu.sh.

    python -m benchmarks.gpu --out FOLDER [--parts goldens,waits,...] [--seconds 1500] [-- COMMAND ...]

Parts run one after the other, each in at most half of the time that is left; what it found, or why it failed, is
written at once to FOLDER/gpu.json and FOLDER/gpu.md. Exit status 1 when one failed. COMMAND gets what time remains.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from benchmarks import machine
from benchmarks.networks import ROOT, ade_network, batch
from benchmarks.rows.training_step import make_trainer
from pipeline.config import load_project, load_resolved
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import write_index
from pipeline.errors import report_user_errors
from pipeline.layout import Layout
from pipeline.planning.plan import write_plan
from pipeline.results.record import TrainingFiles
from pipeline.runtime.device import available_cores, resolve_device, set_kernels
from pipeline.training.step import training_step
from pipeline.training.train import train_benchmark

Found = dict[str, Any]
_ALLOWED_WAITS = 1
_INTERRUPTED_AFTER = 40  # iterations, in the middle of an epoch
_AT_ONCE = 3  # trainings of the default that share the GPU


def goldens(device: torch.device, seconds: float) -> Found:
    """The authors' numbers with networks on the device, float32 without TF32; those of GOLDENS, else the project's."""
    command = ["-m", "pytest", "tests/system/test_goldens.py", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    at_once = max(1, min(available_cores() // 2, 8))  # most of the time goes to drawing weights, on the processor
    environment = {"GOLDENS_DEVICE": str(device), "OMP_NUM_THREADS": "2"}
    said = _run([sys.executable, *command, "-rsfE", "--tb=short", "-n", str(at_once)], seconds, environment)
    return {"summary": said.splitlines()[-1], "skipped": [x for x in said.splitlines() if x.startswith("SKIPPED")]}


def waits(device: torch.device, seconds: float) -> Found:
    """How often the host waits for the GPU in one training step of ADE20K's ResNet-50 row."""
    if device.type != "cuda":
        raise RuntimeError("only a GPU can be waited for")
    set_kernels(device, "float32")
    trainer = make_trainer(ade_network(device).to(memory_format=torch.channels_last), device, "float32")
    part = batch(512, 2, device)
    for _ in range(2):
        training_step(trainer, [part], 0, epoch=2)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            training_step(trainer, [part], 0, epoch=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    if len(places) > _ALLOWED_WAITS:
        raise RuntimeError(f"{len(places)} waits in one step, at most {_ALLOWED_WAITS} expected: {', '.join(places)}")
    return {"per_step": len(places), "places": places}


def resume(device: torch.device, seconds: float, epochs: int = 3) -> Found:
    """An interrupted and resumed training against two that ran through: how far do the final weights differ?

    On a GPU some kernels add in varying order, so even two uninterrupted trainings differ; on the CPU none may.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        changes = {"schedule": {"epochs": epochs}, "encoder": {"weights": None}}
        _project(root, {"device": str(device), "log_every": 1}, ["digits-fcn-mcibi"], [0], changes)
        layout, runtime = Layout(root), load_project(root).runtime
        write_plan(root, layout.plan)
        spec = get_dataset("digits")
        download(spec, layout.raw("digits"), None, layout.source("digits"))
        prepare(spec, layout.raw("digits"), layout.prepared("digits"))
        write_index(spec, layout.prepared("digits"), "digits-fcn-mcibi", layout.index("digits-fcn-mcibi"))
        benchmark = load_resolved(layout.resolved_for("train", "digits-fcn-mcibi"))
        files = TrainingFiles(layout, benchmark.id, 0)

        def interrupt(iteration: int, _: Mapping[str, float]) -> None:
            if iteration == _INTERRUPTED_AFTER:
                os.kill(os.getpid(), signal.SIGINT)

        def trained() -> tuple[dict[str, torch.Tensor], int]:
            """The last weights, and the first iteration that this training logged."""
            logged: list[int] = []
            train_benchmark(root, benchmark, 0, runtime, lambda iteration, values: logged.append(iteration))
            weights = load_file(files.existing_weights("last"))
            shutil.rmtree(files.folder)
            return weights, logged[0]

        (first, _), (again, _) = trained(), trained()
        try:
            train_benchmark(root, benchmark, 0, runtime, interrupt)
        except KeyboardInterrupt:
            interrupted, went_on_at = trained()
        else:
            raise RuntimeError(f"the training was not interrupted after iteration {_INTERRUPTED_AFTER}")
        if went_on_at <= _INTERRUPTED_AFTER:
            raise RuntimeError(f"the interrupted training began again, at iteration {went_on_at}, instead of resuming")
        iterations = files.history["iteration"].tolist()
    if iterations != list(range(1, len(iterations) + 1)):
        raise RuntimeError(f"an interrupted training logged the iterations {iterations}")
    repeated, resumed = _difference(first, again), _difference(first, interrupted)
    if resumed > max(10 * repeated, 0 if device.type == "cpu" else 1e-3):
        raise RuntimeError(f"resumed weights differ by {resumed:.2g}, those of a repetition by {repeated:.2g}")
    return {"iterations": len(iterations), "repeated": repeated, "resumed": resumed}


def rows(device: torch.device, seconds: float) -> Found:
    """The rows of `make bench` that compute on the device, against the authors' toolbox."""
    return _bench(device, seconds, "update", "module", "training", "evaluation", "averaging")


def precision(device: torch.device, seconds: float) -> Found:
    """The training step by precision, channels last, compiled, with the floors of this hardware."""
    return _bench(device, seconds, "precision")


def _bench(device: torch.device, seconds: float, *names: str) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", "--device", str(device), "--json", str(out)]
        try:
            said = _run(command + [argument for name in names for argument in ("--only", name)], seconds)
        except (RuntimeError, subprocess.TimeoutExpired):
            if not out.exists():
                raise
            return {"failed": traceback.format_exc(limit=3), **json.loads(out.read_text())}
        return {"table": said, **json.loads(out.read_text())}


def default(device: torch.device, seconds: float) -> Found:
    """What `make reproduce` runs, on this device and without DVC and MLflow, and the verdict on it."""
    started = time.monotonic()

    def left() -> float:
        return seconds - (time.monotonic() - started)

    with tempfile.TemporaryDirectory() as folder:
        root, chosen = Path(folder), load_project(ROOT)
        for name in ("pipeline", "stages", "dvc.yaml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "reports" / "reference", root / "reports" / "reference")
        _project(root, {"device": str(device)}, chosen.benchmarks, chosen.seeds, {})

        def stage(*arguments: str) -> None:
            _run([sys.executable, "-m", f"stages.{arguments[0]}", *arguments[1:]], left(), cwd=root)

        def chain(benchmark: str, seed: int) -> None:
            stage("train", benchmark, str(seed))
            stage("evaluate_msflip", benchmark, str(seed))

        for name in ("plan", "download", "preprocess"):
            stage(name)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = [pool.submit(chain, name, seed) for seed in chosen.seeds for name in chosen.benchmarks]
        for one in running:
            one.result()
        said = _run([sys.executable, "-m", "pipeline", "verify"], left(), cwd=root, allowed=(0, 1))
        verdict = json.loads((root / "reports" / "verdict.json").read_text())
        return {"seconds": time.monotonic() - started, "table": said, **verdict}


PARTS: dict[str, Callable[[torch.device, float], Found]] = {  # first what no GPU has measured yet
    "precision": precision,
    "default": default,
    "resume": resume,
    "goldens": goldens,
    "waits": waits,
    "rows": rows,
}


def main() -> int:
    """Run the parts that were asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), metavar="NAME,...")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"--parts: {', '.join(unknown)} unknown; choose from {', '.join(PARTS)}")
    with report_user_errors():
        device = resolve_device(arguments.device, "--device")
    end = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Found] = {"about": machine.describe(device, "benchmarks.gpu")}
    for name in arguments.parts:
        started = time.monotonic()
        try:
            found[name] = PARTS[name](device, (end - started) / 2)
        except Exception:  # the other parts still count; the exit status says that one failed
            found[name] = {"failed": traceback.format_exc(limit=3)}
        found[name]["took"] = took = round(time.monotonic() - started, 1)
        print(f"{name}: {'FAILED' if 'failed' in found[name] else 'done'} in {took} s", flush=True)
        (arguments.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (arguments.out / "gpu.md").write_text(described(found), encoding="utf-8")
    print(described(found))
    if arguments.command:
        _run(arguments.command, end - time.monotonic(), show=True)
    return int(any("failed" in part for part in found.values()))


def described(found: Mapping[str, Found]) -> str:
    """What was found, as Markdown."""
    about = found["about"]
    lines = [f"{about['device']}, torch {about['torch']}, commit `{about['commit'][:10]}`", ""]
    lines += ["| Part | Seconds | Result |", "|---|---:|---|"]
    for name, part in found.items():
        if "failed" in part:
            lines.append(f"| {name} | {part['took']} | FAILED: {part['failed'].strip().splitlines()[-1]} |")
        elif name != "about":
            shown = {key: part[key] for key in ("summary", "per_step", "repeated", "resumed", "verdict") if key in part}
            result = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
            lines.append(f"| {name} | {part['took']} | {result or 'see below'} |")
    tables = [f"\n```\n{part['table'].strip()}\n```" for part in found.values() if "table" in part]
    return "\n".join([*lines, *tables]) + "\n"


def _project(
    root: Path, runtime: Mapping[str, object], benchmarks: Sequence[str], seeds: Sequence[int], ablation: Found
) -> None:
    """params/ and params.yaml of a project without MLflow."""
    shutil.copytree(ROOT / "params", root / "params")
    choice = {"benchmarks": list(benchmarks), "seeds": list(seeds), "runtime": {"mlflow": False, **runtime}}
    (root / "params.yaml").write_text(yaml.safe_dump(choice | {"ablation": ablation}), encoding="utf-8")


def _run(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    allowed: Sequence[int] = (0,),
    show: bool = False,
) -> str:
    """Standard output of a command with a time limit in seconds; RuntimeError with the end of its output."""
    environment = os.environ | (environment or {})
    pipes: dict[str, Any] = {} if show else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, check=False, timeout=max(seconds, 1), **pipes)
    said = f"{done.stderr or ''}{done.stdout or ''}"
    if done.returncode not in allowed:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{said[-6000:]}")
    return done.stdout or ""


def _difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Largest over the tensors of the root mean square difference, relative to the first's size."""
    pairs = [(first[name].double(), second[name].double()) for name in first]
    return max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main())
