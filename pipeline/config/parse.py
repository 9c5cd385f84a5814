"""YAML to typed sections, with errors that name the file, the key and the nearest valid key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import PipelineError

SectionT = TypeVar("SectionT", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise PipelineError(
                    f"{node.start_mark.name}: key {key!r} stands twice (line {key_node.start_mark.line + 1}): keep one"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the YAML file `path`. Raises PipelineError when it is missing, malformed or no mapping."""
    try:
        with path.open(encoding="utf-8") as stream:
            data = yaml.load(stream, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        near = nearest(path.stem, sorted(p.stem for p in path.parent.glob(f"*{path.suffix}")))
        raise PipelineError(f"{path}: no such file{f'; did you mean {near}{path.suffix}?' if near else ''}") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise PipelineError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    return data


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate most like `word`, or None when nothing is alike."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return found[0] if found else None


def parse(section: type[SectionT], data: dict[str, Any], where: str) -> SectionT:
    """`data` as a `section`. Raises PipelineError that lists every problem, one per line, `where` in front."""
    try:
        return section.model_validate(data)
    except ValidationError as error:
        raise PipelineError("\n".join(_lines(section, error, where))) from None


def parse_valid(section: type[SectionT], data: dict[str, Any], where: str) -> tuple[SectionT | None, list[str]]:
    """`data` as a `section` without its top-level keys that have problems, and these; None when one was required."""
    try:
        return section.model_validate(data), []
    except ValidationError as error:
        wrong = {item["loc"][0] for item in error.errors() if item["loc"]}
        problems = _lines(section, error, where)
    try:
        return section.model_validate({key: value for key, value in data.items() if key not in wrong}), problems
    except ValidationError:
        return None, problems


def _lines(section: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    return [f"{where}: {_describe(section, item)}" for item in error.errors()]


def _describe(section: type[BaseModel], item: Any) -> str:
    loc = [str(part) for part in item["loc"]]
    key = ".".join(loc) or "(top level)"
    if item["type"] == "extra_forbidden":
        owner = _section_at(section, item["loc"][:-1])
        valid = sorted(owner.model_fields) if owner else []
        near = nearest(loc[-1], valid)
        hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(valid)}"
        return f"{key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{key}: required but absent"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if isinstance(item["input"], dict | BaseModel) else f" (found {item['input']!r})"
    return f"{key}: {message}{found}"


def _section_at(section: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The section class that the key path `loc` leads to."""
    parts = list(loc)
    while parts:
        field = section.model_fields.get(str(parts.pop(0)))
        if field is None:
            return None
        inner = [field.annotation, *get_args(field.annotation)]
        found = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
        if not found:
            return None
        section = found[0]
        if get_origin(field.annotation) in (dict, tuple) and parts:
            parts.pop(0)  # the key or position of one of several such sections
    return section
