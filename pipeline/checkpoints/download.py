"""Weight files on this machine: downloaded once, recorded, and verified at every later use.

`weights.lock.json` at the repository root holds size and sha256 of every file at its first download. Commit it to Git,
so that everybody who runs the project uses the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline.checkpoints.planned import PlannedWeights, WeightFile
from pipeline.errors import PipelineError
from pipeline.files.fetch import NotFoundError, fetch_file
from pipeline.files.locks import exclusive
from pipeline.files.storage import file_digest, read_json, write_json
from pipeline.layout import Layout

_PAPER_TAG = "ssseg_memorynet"
_DIGITS = re.compile(r"-([0-9a-f]{8})$")  # end of a file's stem: how its sha256 begins, by torch's convention


def download_weights(planned: Mapping[str, PlannedWeights], layout: Layout) -> None:
    """Download the weight files of all planned benchmarks and record where they are in `layout.weights_source`.

    A file that is present is only verified. When an address has no file (404), the next one is tried, with a message.
    Raises PipelineError, with the remedy, when a file is unavailable or differs from the recorded one.
    """
    found: dict[str, dict[str, Any]] = {}
    by_name: dict[str, WeightFile] = {}  # several benchmarks may start from the same ImageNet weights
    with exclusive(layout.weights):
        for benchmark, weights in planned.items():
            if weights.name not in by_name:
                by_name[weights.name] = _local(weights, layout) if weights.file else _fetched(weights, layout)
            found[benchmark] = asdict(by_name[weights.name])
    write_json(layout.weights_source, found)


def generation(url: str) -> str:
    """`paper` or `model_zoo` by the release tag in an address of the authors' model store, else `local`."""
    tag = PurePosixPath(urlsplit(url).path).parent.name
    if tag == _PAPER_TAG:
        return "paper"
    return "model_zoo" if tag.startswith("ssseg_") else "local"


def _local(weights: PlannedWeights, layout: Layout) -> WeightFile:
    """A file named in params.yaml; if it has the name of a recorded download, it must be identical to it."""
    path = layout.root / Path(weights.file).expanduser()
    if not path.is_file():
        instead = f"set it to null to download from {weights.urls[0]}" if weights.urls else "download it there"
        raise PipelineError(f"params.yaml: weights.{weights.name}: {path}: no such file; correct the path or {instead}")
    recorded = recorded_weights(layout).get(weights.name)
    if recorded is not None and PurePosixPath(urlsplit(recorded["url"]).path).name != path.name:
        recorded = None
    size, digest = _verified(path, weights, recorded, layout)
    return WeightFile(str(path), None, size, digest, "local")


def _fetched(weights: PlannedWeights, layout: Layout) -> WeightFile:
    lock = recorded_weights(layout)
    recorded = lock.get(weights.name)
    urls = _ordered(weights, recorded, layout)
    for position, url in enumerate(urls, start=1):
        target = weights_path(url, layout)
        new = not target.is_file()
        try:
            if new:
                fetch_file(url, target)
        except PipelineError as error:
            if isinstance(error, NotFoundError) and position < len(urls):
                print(f"{weights.name}: {error}; trying {urls[position]}", flush=True)
                continue
            others = f" (addresses: {', '.join(urls)})" if len(urls) > 1 else ""
            raise PipelineError(
                f"{error}{others}\nWithout network, or when the addresses are gone: put the file anywhere on this "
                f"machine and set `weights: {{{weights.name}: PATH}}` in params.yaml"
            ) from error
        try:
            size, digest = _verified(target, weights, recorded, layout)
        except PipelineError:
            if new:
                target.unlink()
            raise
        if recorded is None:
            entry = {"url": url, "bytes": size, "sha256": digest}
            write_json(layout.weights_lock, dict(sorted((lock | {weights.name: entry}).items())))
        return WeightFile(target.relative_to(layout.home).as_posix(), url, size, digest, generation(url))
    raise PipelineError(f"{weights.name}: no address to download its weights from; add one to published.checkpoints")


def _ordered(weights: PlannedWeights, recorded: dict[str, Any] | None, layout: Layout) -> list[str]:
    """The address of the recorded file first; before there is one, the address whose file is here already."""
    if recorded is None:
        return sorted(weights.urls, key=lambda url: not weights_path(url, layout).is_file())
    if recorded["url"] not in weights.urls:
        raise PipelineError(
            f"{layout.weights_lock}: {weights.name} was downloaded from {recorded['url']}, which is none of its "
            f"addresses now; remove the entry {weights.name!r} there to record the file of the new ones"
        )
    return [recorded["url"], *(url for url in weights.urls if url != recorded["url"])]


def weights_path(url: str, layout: Layout) -> Path:
    """Where the file of an address is kept: file names alone may repeat between release tags."""
    path = PurePosixPath(urlsplit(url).path)
    return layout.weights / path.parent.name / path.name


def _verified(path: Path, weights: PlannedWeights, recorded: dict[str, Any] | None, layout: Layout) -> tuple[int, str]:
    """Size and sha256 of `path`, once they agree with the record and with the digits in the file's name."""
    size, digest = path.stat().st_size, file_digest(path)
    if recorded is not None and digest != recorded["sha256"]:
        raise PipelineError(
            f"{path}: sha256 is {digest} ({size} bytes), but {layout.weights_lock.name} recorded {recorded['sha256']} "
            f"({recorded['bytes']} bytes) for {weights.name} from {recorded['url']}. Delete the file and run again to "
            f"download it; if another file is meant, remove the entry {weights.name!r} from "
            f"{layout.weights_lock.name}"
        )
    digits = _DIGITS.search(path.stem)
    if digits and not digest.startswith(digits[1]):
        raise PipelineError(
            f"{path}: sha256 is {digest}, but by its name it begins with {digits[1]}: the file is damaged or not "
            "the named one. Delete it and run again to download it"
        )
    return size, digest


def recorded_weights(layout: Layout) -> dict[str, dict[str, Any]]:
    """What `weights.lock.json` says of each file ever downloaded, by name; empty without it."""
    path = layout.weights_lock
    return read_json(path, f"restore it with `git checkout {path.name}`") if path.is_file() else {}
