"""One mapping over another: what `extends`, the ablation of params.yaml and the variants of a study have in common.

All three are `overlay`; where they differ, one of the two mappings is reduced first:

- `extends`: REPORT_ONLY keys of an extended benchmark, which are true of it alone, are not inherited.
- ablation: `applicable` removes nulls, and sections that the benchmark does not have.
- study: nothing. `memory: {}` adds a memory, and null sets null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.parse import unknown_keys
from pipeline.config.schema import Benchmark

Changes = dict[str, Any]

# Keys that only the report reads, at their neutral values.
REPORT_ONLY: Changes = {"description": "", "baseline": None, "published": None}

_ELSEWHERE = {
    "id": "the file's name is the benchmark's id",
    "start": "only a variant of a study has it, beside `set`",
}


def overlay(base: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """`changes` over `base`, key by key; lists and single values are replaced.

    `options` belong to a framework or an encoder: naming another one in `changes` drops those of `base`.
    """
    merged = dict(base)
    if any(key in changes and changes[key] != base.get(key) for key in ("framework", "name")):
        merged.pop("options", None)
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlay(merged[key], value) if deeper else value
    return merged


def applicable(ablation: Changes, benchmark: dict[str, Any]) -> Changes:
    """The ablation without its nulls and without sections that the benchmark lacks, such as `memory`."""
    kept = {}
    for key, value in ablation.items():
        if isinstance(value, dict):
            inner = benchmark.get(key)
            value = applicable(value, inner if isinstance(inner, dict) else {}) if inner is not None else None
        if value is not None and value != {}:
            kept[key] = value
    return kept


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Single values, lists and empty mappings of nested mappings by their keys, such as `memory.strategy`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """Value of the dotted `key`, such as `inference.ms_flip.scales`; None where the key or its section is absent."""
    value: Any = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def change_problems(changes: Changes, prefix: str) -> list[str]:
    """Keys of `changes` that no benchmark can have, one line each after `prefix`."""
    problems = [f"{key}: unknown key; {_ELSEWHERE[key]}" for key in _ELSEWHERE if key in changes]
    problems += unknown_keys(Benchmark, {key: value for key, value in changes.items() if key not in _ELSEWHERE})
    return [prefix + problem for problem in problems]
