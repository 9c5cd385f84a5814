"""Load `params.yaml` and the benchmarks of `params/`, and hash what decides their results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.overlay import REPORT_ONLY, Changes, applicable, change_problems, overlay
from pipeline.config.parse import parse, parse_valid, read_yaml, suggestion
from pipeline.config.schema import Benchmark, InferenceConfig, Project
from pipeline.errors import PipelineError


def load_project(root: Path) -> Project:
    """`params.yaml` under `root`, typed."""
    return parse(Project, read_yaml(root / "params.yaml"), "params.yaml")


def load_valid_project(root: Path) -> tuple[Project | None, list[str]]:
    """What is valid of `params.yaml`, and its problems, one per line; None when its benchmarks cannot be read.

    A key with a problem gets its default, an ablation with one is left out, so that other problems can be looked for.
    """
    try:
        data = read_yaml(root / "params.yaml")
    except PipelineError as error:
        return None, [str(error)]
    project, problems = parse_valid(Project, data, "params.yaml")
    wrong = change_problems(project.ablation, "params.yaml: ablation.") if project else []
    if project and wrong:
        project = project.model_copy(update={"ablation": {}})
    return project, problems + wrong


def benchmark_ids(root: Path) -> list[str]:
    """Ids of all benchmarks of `params/`, sorted: its files, except those that others merely extend (`_NAME.yaml`)."""
    return [name for name in _file_names(root) if not name.startswith("_")]


def load_benchmark(root: Path, benchmark_id: str, ablation: Changes | None = None) -> Benchmark:
    """`params/<benchmark_id>.yaml` over what it extends, and `ablation` over it.

    Raises PipelineError for a missing file and for every key or value that is not valid.
    """
    if benchmark_id.startswith("_"):
        known = ", ".join(benchmark_ids(root))
        raise PipelineError(f"params/{benchmark_id}.yaml: shared keys, not a benchmark; choose one of {known}")
    data, where = _stated(root, benchmark_id)
    if "id" in data:
        raise PipelineError("\n".join(change_problems(data, f"params/{benchmark_id}.yaml: ")))
    benchmark = parse(Benchmark, {"id": benchmark_id, **data}, where)
    if problems := change_problems(ablation or {}, "params.yaml: ablation."):
        raise PipelineError("\n".join(problems))
    resolved = benchmark.model_dump(mode="json")
    changes = applicable(ablation or {}, resolved)
    return parse(Benchmark, overlay(resolved, changes), f"{where} with params.yaml ablation") if changes else benchmark


def _stated(root: Path, name: str) -> tuple[dict[str, Any], str]:
    """The keys of `params/<name>.yaml` over those of the file that it extends, and both files for messages."""
    where = f"params/{name}.yaml"
    data = read_yaml(root / where)
    parent = data.pop("extends", None)
    if parent is None:
        return data, where
    if parent not in _file_names(root):
        raise PipelineError(f"{where}: extends: no params/{parent}.yaml; {suggestion(str(parent), _file_names(root))}")
    base = read_yaml(root / "params" / f"{parent}.yaml")
    if "extends" in base:
        raise PipelineError(
            f"{where}: extends: params/{parent}.yaml extends params/{base['extends']}.yaml itself, and only one level "
            f"is allowed; extend params/{base['extends']}.yaml and repeat the keys of params/{parent}.yaml"
        )
    if problems := change_problems(base, f"params/{parent}.yaml: "):
        raise PipelineError("\n".join(problems))
    if not parent.startswith("_"):
        base = {key: value for key, value in base.items() if key not in REPORT_ONLY}
    return overlay(base, data), f"{where} over params/{parent}.yaml"


def _file_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "params").glob("*.yaml"))


def resolved_yaml(benchmark: Benchmark) -> str:
    """The benchmark with every default written out, as YAML text in a fixed order."""
    return yaml.safe_dump(benchmark.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_resolved(path: Path) -> Benchmark:
    """A benchmark that `resolved_yaml` wrote."""
    return parse(Benchmark, read_yaml(path), str(path))


def for_evaluation(benchmark: Benchmark) -> Benchmark:
    """`benchmark` without the keys that only the report reads: a new description evaluates nothing again."""
    return benchmark.model_copy(update=REPORT_ONLY)


def for_training(benchmark: Benchmark) -> Benchmark:
    """`for_evaluation` with defaults for what only the final test reads: a new test scale trains nothing again."""
    default = InferenceConfig()
    untested = {key: getattr(default, key) for key in ("ms_flip", "checkpoint", "cascade")}
    inference = benchmark.inference.model_copy(update=untested)
    dataset = benchmark.dataset.model_copy(update={"evaluation_split": benchmark.dataset.validation_split})
    return for_evaluation(benchmark).model_copy(update={"inference": inference, "dataset": dataset})


def config_hash(benchmark: Benchmark) -> str:
    """Twelve hex digits of everything that can change the trained weights."""
    return _digest(for_training(benchmark))


def evaluation_hash(benchmark: Benchmark) -> str:
    """Twelve hex digits of everything that can change the scores: the training, and how its result is tested."""
    return _digest(for_evaluation(benchmark))


# Keys that came after the first committed results. At their default they are left out of the hash, so that those
# results stay results of the configuration that made them.
_LATER = {
    "": ("start",),
    "memory": ("fusion", "kind", "head"),
    "loss": ("class_weights", "context"),
    "inference": ("cascade",),
    "inference.single_scale": ("resize",),
    "inference.ms_flip": ("resize",),
    "optimizer": ("decay_encoder_norms",),
    "schedule": ("warmup_iterations", "warmup_ratio"),
}


def hashed(benchmark: Benchmark) -> dict[str, Any]:
    """What the hashes are made of: every key, except `_LATER` ones at their default."""
    data = benchmark.model_dump(mode="json")
    for path, keys in _LATER.items():
        section, part = benchmark, data
        for name in filter(None, path.split(".")):
            section, part = section and getattr(section, name), part and part[name]
        for key in keys if section is not None else ():
            if getattr(section, key) == type(section).model_fields[key].default:
                del part[key]
    return data


def _digest(benchmark: Benchmark) -> str:
    return hashlib.sha256(json.dumps(hashed(benchmark), sort_keys=True).encode()).hexdigest()[:12]
