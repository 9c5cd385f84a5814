"""Load `params.yaml`, the chosen `params/<benchmark>.yaml`, and lay the ablation over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.parse import nearest, parse, parse_valid, read_yaml
from pipeline.config.schema import Benchmark, InferenceConfig, Project
from pipeline.errors import PipelineError

Overlay = dict[str, Any]


def load_project(root: Path) -> Project:
    """`params.yaml` under `root`, typed."""
    return parse(Project, read_yaml(root / "params.yaml"), "params.yaml")


def load_valid_project(root: Path) -> tuple[Project | None, list[str]]:
    """What is valid of `params.yaml`, and its problems, one a line; None when no benchmark can be told from it.

    A key with a problem is at its default, an ablation with one is left out: what else is wrong can then be looked for.
    """
    try:
        data = read_yaml(root / "params.yaml")
    except PipelineError as error:
        return None, [str(error)]
    project, problems = parse_valid(Project, data, "params.yaml")
    wrong = ablation_problems(project.ablation) if project else []
    if project and wrong:
        project = project.model_copy(update={"ablation": {}})
    return project, problems + wrong


def ablation_problems(ablation: Overlay) -> list[str]:
    """Keys of `ablation` that no benchmark can have, one line each."""
    return _unknown_keys(_set_values(ablation), Benchmark.model_json_schema(), "ablation")


def load_benchmark(root: Path, benchmark_id: str, ablation: Overlay | None = None) -> Benchmark:
    """`params/<benchmark_id>.yaml` with `ablation` laid over it. Raises PipelineError for any invalid key."""
    path = root / "params" / f"{benchmark_id}.yaml"
    data = read_yaml(path)
    if "id" in data:
        raise PipelineError(f"params/{path.name}: id: unknown key; the file's name is the benchmark's id")
    where = f"params/{path.name}"
    plain = parse(Benchmark, {"id": benchmark_id, **data}, where)
    overlay = _set_values(ablation or {})
    if not overlay:
        return plain
    unknown = ablation_problems(overlay)
    if unknown:
        raise PipelineError("\n".join(unknown))
    merged = _merge(plain.model_dump(mode="json"), overlay)
    return parse(Benchmark, merged, f"{where} with params.yaml ablation")


def resolved_yaml(benchmark: Benchmark) -> str:
    """The benchmark with every default written out, as YAML text with stable order."""
    return yaml.safe_dump(benchmark.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_resolved(path: Path) -> Benchmark:
    """A benchmark that `resolved_yaml` wrote."""
    return parse(Benchmark, read_yaml(path), str(path))


def for_evaluation(benchmark: Benchmark) -> Benchmark:
    """`benchmark` without what only the report reads: a new description does not evaluate anything again."""
    return benchmark.model_copy(update={"description": "", "published": None, "baseline": None})


def for_training(benchmark: Benchmark) -> Benchmark:
    """`for_evaluation`, and what only the final test reads is at its default: a new scale does not train again."""
    default = InferenceConfig()
    inference = benchmark.inference.model_copy(update={"ms_flip": default.ms_flip, "checkpoint": default.checkpoint})
    dataset = benchmark.dataset.model_copy(update={"evaluation_split": benchmark.dataset.validation_split})
    return for_evaluation(benchmark).model_copy(update={"inference": inference, "dataset": dataset})


def config_hash(benchmark: Benchmark) -> str:
    """Twelve hex digits over everything that can move the trained weights."""
    return _digest(for_training(benchmark))


def evaluation_hash(benchmark: Benchmark) -> str:
    """Twelve hex digits over everything that can move the scores: the training, and how its outcome is tested."""
    return _digest(for_evaluation(benchmark))


def _digest(benchmark: Benchmark) -> str:
    return hashlib.sha256(json.dumps(benchmark.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]


def _set_values(overlay: Overlay) -> Overlay:
    """The overlay without its nulls: those leave the benchmark's own value."""
    kept = {key: _set_values(value) if isinstance(value, dict) else value for key, value in overlay.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def _merge(base: dict[str, Any], overlay: Overlay) -> dict[str, Any]:
    """`overlay` over `base`. A section that the benchmark does not have (no memory, say) stays absent."""
    merged = dict(base)
    for key, value in overlay.items():
        if isinstance(value, dict):
            if merged.get(key) is not None:
                merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _unknown_keys(overlay: Overlay, schema: dict[str, Any], where: str) -> list[str]:
    """Every overlay key that does not exist in the schema, also where a section is absent from a benchmark."""
    definitions = schema.get("$defs", {})

    def properties(node: dict[str, Any]) -> dict[str, Any] | None:
        for option in [node, *node.get("anyOf", ())]:
            target = definitions.get(option.get("$ref", "").rpartition("/")[2], option)
            if "properties" in target:
                return target["properties"]
        return None

    def walk(part: Overlay, known: dict[str, Any], path: str) -> Iterator[str]:
        for key, value in part.items():
            if key not in known or (path == "ablation" and key == "id"):
                near = nearest(str(key), sorted(known))
                hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(sorted(known))}"
                yield f"params.yaml: {path}.{key}: unknown key; {hint}"
            elif isinstance(value, dict) and (inner := properties(known[key])) is not None:
                yield from walk(value, inner, f"{path}.{key}")

    return list(walk(overlay, schema["properties"], where))
