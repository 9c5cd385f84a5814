"""YAML to typed sections, with errors that name the file, the key and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from pipeline.errors import PipelineError

SectionT = TypeVar("SectionT", bound=BaseModel)

_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`, which lays the keys of another mapping under those that stand here


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys without a word; here that is an error."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
        self._checked: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Before the first merge: it puts the keys of the other mapping into the node, where they may stand again. A
        # node may be merged into another one before it is constructed itself, hence not in `construct_mapping`.
        if node not in self._checked:
            self._checked.add(node)
            self._require_unique(node)
        super().flatten_mapping(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, LookupError, ValueError) as error:  # SafeLoader trusts what looks like a date
            kind = node.tag.rpartition(":")[2]
            problem = f"{node.value!r} is no {kind} ({error}); put it in quotes if it is text"
            raise ConstructorError(None, None, problem, node.start_mark) from None

    def _require_unique(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = "found braces or brackets as a key; put a text with braces in quotes"
                raise ConstructorError("while reading a mapping", node.start_mark, problem, key_node.start_mark)
            if key in seen:
                raise PipelineError(
                    f"{node.start_mark.name}: key {key!r} stands twice (line {key_node.start_mark.line + 1}): keep one"
                )
            seen.add(key)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the YAML file `path`. Raises PipelineError when it is missing, malformed or no mapping."""
    try:
        data = _UniqueKeyLoader(_text(path), str(path)).get_single_data()
    except FileNotFoundError:
        near = nearest(path.stem, sorted(p.stem for p in path.parent.glob(f"*{path.suffix}")))
        raise PipelineError(f"{path}: no such file{f'; did you mean {near}{path.suffix}?' if near else ''}") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise PipelineError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    return data


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise PipelineError(f"{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate most like `word`, or None when nothing is alike."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return found[0] if found else None


def suggestion(word: str, known: Sequence[str]) -> str:
    """What to write in place of the unknown `word`: the name most like it, else all that there are."""
    near = nearest(word, list(known))
    return f"did you mean `{near}`?" if near else f"there are {', '.join(known) or 'none'}"


def parse(section: type[SectionT], data: dict[str, Any], where: str) -> SectionT:
    """`data` as a `section`. Raises PipelineError that lists every problem, one per line, `where` in front."""
    try:
        return section.model_validate(data)
    except ValidationError as error:
        raise PipelineError("\n".join(_lines(section, error, where))) from None


def problems_of(section: type[BaseModel], data: dict[str, Any]) -> list[str]:
    """What `parse` would raise, without its `where`; empty when `data` is a valid `section`."""
    try:
        section.model_validate(data)
    except ValidationError as error:
        return [_describe(section, item) for item in error.errors()]
    return []


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
    key = ".".join(loc)
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
    return f"{key}: {message}{found}" if key else message  # what concerns several sections names its key itself


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
