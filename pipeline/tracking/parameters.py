"""The configuration in the shape MLflow wants: flat names and short text."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import Benchmark

LONGEST_VALUE = 6000  # characters; MLflow refuses more

_NOT_SETTINGS = {"id", "description", "published", "baseline"}
_OF_EVALUATION = ("inference.ms_flip.", "inference.checkpoint", "dataset.evaluation_split")


def flat_parameters(benchmark: Benchmark, with_evaluation: bool) -> dict[str, str]:
    """`section.key: value` of everything that can move a result; the full text is the artifact config.yaml.

    with_evaluation: include what only the evaluation reads, which `config.for_training` sets to defaults.
    """
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = parameter_text(value)

    walk("", benchmark.model_dump(mode="json", exclude=_NOT_SETTINGS))
    if not with_evaluation:
        flat = {name: value for name, value in flat.items() if not name.startswith(_OF_EVALUATION)}
    return flat


def parameter_text(value: Any) -> str:
    """`value` as a person would write it in YAML, cut with a note when longer than MLflow takes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST_VALUE:
        return text
    note = f" ... ({len(text)} characters, whole in config.yaml)"
    return text[: LONGEST_VALUE - len(note)] + note
