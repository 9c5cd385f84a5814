"""Digest of the raw files that a dataset uses, cheap to take again."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.datasets.sources.classes import class_table
from pipeline.datasets.spec import DatasetSpec, RawSample
from pipeline.files.storage import cached_json, file_digest, text_digest, write_json

_CACHE = ".digests.json"  # in the raw store: relative path -> [size, mtime in ns, sha256]


@dataclass(frozen=True)
class Manifest:
    """The files behind a dataset's samples."""

    files: int
    bytes: int
    sha256: str  # over the sorted lines `relative path<TAB>size<TAB>sha256`


def raw_manifest(spec: DatasetSpec, raw_dir: Path) -> Manifest:
    """Manifest of the existing image and label files of `spec.samples(raw_dir)`.

    Other files in the store (the archive they came from, say) do not count: an archive can be packed differently and
    hold the same data. A file whose size and modification time did not change is not read again.
    """
    paths = sorted({path for sample in spec.samples(raw_dir) for path in sample_files(sample) if path.is_file()})
    cache_file = raw_dir / _CACHE
    cache = cached_json(cache_file)

    def entry(path: Path) -> tuple[str, list[Any]]:
        name, status = path.relative_to(raw_dir).as_posix(), path.stat()
        known = cache.get(name)
        if known is not None and known[:2] == [status.st_size, status.st_mtime_ns]:
            return name, known
        return name, [status.st_size, status.st_mtime_ns, file_digest(path)]

    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(entry, paths), total=len(paths), desc=f"checksums {spec.name}", unit="file", disable=None)
        found = dict(bar)
    if found and found != cache:
        write_json(cache_file, found)
    lines = [f"{name}\t{size}\t{digest}\n" for name, (size, _, digest) in sorted(found.items())]
    return Manifest(len(found), sum(size for size, _, _ in found.values()), text_digest("".join(lines)))


def sample_files(sample: RawSample) -> list[Path]:
    """Image and, when it has one, label."""
    return [sample.image] if sample.label is None else [sample.image, sample.label]


def dataset_code(spec: DatasetSpec) -> str:
    """Digest of what defines the dataset: editing its module (the digits' constants, say) makes its data stale."""
    files = [Path(inspect.getfile(spec.samples)), class_table(spec.name)]
    return text_digest("".join(path.read_text(encoding="utf-8") for path in files if path.is_file()))
