"""YAML to typed sections, with errors that name the file, the key and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import ConstructorError

from pipeline.errors import PipelineError

SectionT = TypeVar("SectionT", bound=BaseModel)

_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the YAML file `path`. Raises PipelineError when it is missing, malformed or not a mapping."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        loader.name = str(path)
        node = loader.get_single_node()
        _check_node(loader, node, set())
        data = loader.construct_document(node) if node is not None else None
    except FileNotFoundError:
        near = nearest(path.stem, [p.stem for p in path.parent.glob(f"*{path.suffix}")])
        raise PipelineError(f"{path}: no such file{f'; did you mean {near}{path.suffix}?' if near else ''}") from None
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise PipelineError(f"{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise PipelineError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise PipelineError(f"{path}: expected a mapping of keys to values, found {type(data).__name__}")
    return data


def _check_node(loader: yaml.SafeLoader, node: yaml.Node | None, seen: set[yaml.Node]) -> None:
    """Raise for duplicate keys, of which SafeLoader keeps the last, and for impossible dates, on which it fails."""
    if node is None or node in seen:  # an alias is the node of its anchor
        return
    seen.add(node)
    if isinstance(node, yaml.ScalarNode) and node.tag != _MERGE:
        try:
            loader.construct_object(node)
        except (ArithmeticError, LookupError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"{node.value!r} is not a valid {kind} ({error}); put it in quotes if it is text"
            raise ConstructorError(None, None, problem, node.start_mark) from None
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_node(loader, item, seen)
    elif isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "found braces or brackets as a key; put a text with braces in quotes"
                raise ConstructorError("while reading a mapping", node.start_mark, problem, key.start_mark)
            if (key.tag, key.value) in keys:
                line = key.start_mark.line + 1
                raise PipelineError(f"{loader.name}: duplicate key {key.value!r} (line {line}): keep one")
            keys.add((key.tag, key.value))
            _check_node(loader, key, seen)
            _check_node(loader, value, seen)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `word`, or None when none is similar."""
    found = difflib.get_close_matches(word, sorted(candidates), n=1, cutoff=0.5)
    return found[0] if found else None


def suggestion(word: str, known: Iterable[str], kind: str = "names") -> str:
    """What to write instead of the unknown `word`: the most similar of the `known` names, else all of them."""
    known = list(known)
    near = nearest(word, known)
    return f"did you mean `{near}`?" if near else f"valid {kind}: {', '.join(known) or 'none'}"


def parse(section: type[SectionT], data: dict[str, Any], where: str) -> SectionT:
    """`data` as a `section`. Raises PipelineError that lists every problem, one per line after `where`."""
    if problems := problems_of(section, data):
        raise PipelineError("\n".join(f"{where}: {line}" for line in problems))
    return section.model_validate(data)


def problems_of(section: type[BaseModel], data: dict[str, Any]) -> list[str]:
    """What `parse` would raise, without its `where`; empty when `data` is a valid `section`."""
    return [_describe(section, item) for item in _errors(section, data)]


def unknown_keys(section: type[BaseModel], data: dict[str, Any]) -> list[str]:
    """The keys of `data`, which may be incomplete, that a `section` cannot have; one line each."""
    return [_describe(section, item) for item in _errors(section, data) if item["type"] == "extra_forbidden"]


def parse_valid(section: type[SectionT], data: dict[str, Any], where: str) -> tuple[SectionT | None, list[str]]:
    """`data` as a `section` without the top-level keys that have problems, and the problems.

    The first is None when a key with a problem is required.
    """
    problems = [f"{where}: {line}" for line in problems_of(section, data)]
    wrong = {item["loc"][0] for item in _errors(section, data) if item["loc"]}
    kept = {key: value for key, value in data.items() if key not in wrong}
    return None if _errors(section, kept) else section.model_validate(kept), problems


def _errors(section: type[BaseModel], data: dict[str, Any]) -> list[Any]:
    try:
        section.model_validate(data)
    except ValidationError as error:
        return error.errors()
    return []


def _describe(section: type[BaseModel], item: Any) -> str:
    loc = [str(part) for part in item["loc"]]
    key = ".".join(loc)
    if item["type"] == "extra_forbidden":
        owner = _section_at(section, loc[:-1])
        return f"{key}: unknown key; {suggestion(loc[-1], sorted(owner.model_fields), 'keys')}"
    if item["type"] == "missing":
        return f"{key}: required but absent"
    message = item["msg"].removeprefix("Value error, ")
    found = "" if isinstance(item["input"], dict | BaseModel) else f" (found {item['input']!r})"
    return f"{key}: {message}{found}" if key else message  # a problem of several sections names its key itself


def _section_at(section: type[BaseModel], loc: list[str]) -> type[BaseModel]:
    """The section class that the key path `loc` leads to."""
    for part in loc:
        field = section.model_fields.get(part)  # absent: the key or position of one of several sections
        section = next(_sections(field.annotation), section) if field else section
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
