"""Stage `download`: fill the raw store of a dataset, check that it is complete, and record its digest."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.datasets.sources.classes import class_table
from pipeline.datasets.spec import DatasetSpec, RawSample
from pipeline.errors import PipelineError
from pipeline.files.locks import exclusive
from pipeline.files.storage import cached_json, file_digest, text_digest, write_json

# Files in the raw store.
FETCHED = ".fetched.json"  # what the content was fetched from; written last
_DIGESTS = ".digests.json"  # cache: relative path -> [size, mtime in ns, sha256]

DOWNLOAD_AGAIN = "dvc repro --force download"  # DVC itself does not see what changed in a source
_MAX_PROBLEMS = 20  # reported at once


@dataclass(frozen=True)
class Manifest:
    """Number, size and digest of the files of a dataset's samples."""

    files: int
    bytes: int
    sha256: str  # of the sorted lines `relative path<TAB>size<TAB>sha256`


def download(spec: DatasetSpec, raw_dir: Path, source: str | None, sources_file: Path) -> None:
    """Fetch `spec` from `source` (local folder or archive; None: the public address) into `raw_dir`.

    Writes `sources_file`: {"dataset", "source"} and the `Manifest`. Fetches nothing if the store is complete, unchanged
    and from the same source and code. Raises PipelineError, with the remedy, if the source is missing or does not have
    as many images as `spec.splits` says, each with its label. The files are opened by `prepare`, not here.
    """
    with exclusive(raw_dir):
        raw_dir.mkdir(parents=True, exist_ok=True)
        origin, fetched = {"source": source, "code": dataset_code(spec)}, cached_json(raw_dir / FETCHED)
        digest = fetched.pop("sha256", None)
        manifest = raw_manifest(spec, raw_dir) if fetched == origin else None
        complete = manifest is not None and manifest.sha256 == digest
        if not complete:
            (raw_dir / FETCHED).unlink(missing_ok=True)
            spec.fetch(raw_dir, source)
        checked_samples(spec, raw_dir)  # even if nothing was fetched: the expected counts may have changed
        if not complete:
            manifest = raw_manifest(spec, raw_dir)
            write_json(raw_dir / FETCHED, {**origin, "sha256": manifest.sha256})
        write_json(sources_file, {"dataset": spec.name, "source": source, **asdict(manifest)})


def dataset_code(spec: DatasetSpec) -> str:
    """Digest of the code that defines the dataset: editing it makes downloaded and prepared data stale."""
    files = [Path(inspect.getfile(spec.samples)), class_table(spec.name)]
    return text_digest("".join(path.read_text(encoding="utf-8") for path in files if path.is_file()))


def raw_manifest(spec: DatasetSpec, raw_dir: Path) -> Manifest:
    """Manifest of the files of `spec.samples(raw_dir)` that exist; a file that did not change is not read again."""
    paths = sorted({path for sample in spec.samples(raw_dir) for path in sample.files if path.is_file()})
    cache = cached_json(raw_dir / _DIGESTS)

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
        write_json(raw_dir / _DIGESTS, found)
    lines = [f"{name}\t{size}\t{digest}\n" for name, (size, _, digest) in sorted(found.items())]
    return Manifest(len(found), sum(size for size, _, _ in found.values()), text_digest("".join(lines)))


def changed_file(raw_dir: Path) -> str | None:
    """A file that is not what the last `raw_manifest` read, by its path below `raw_dir`; None if there is none.

    Files of equal size and time are not read.
    """
    for name, (size, time, digest) in cached_json(raw_dir / _DIGESTS).items():
        path = raw_dir / name
        if not path.is_file():
            return name
        status = path.stat()
        if [status.st_size, status.st_mtime_ns] != [size, time] and file_digest(path) != digest:
            return name
    return None


def checked_samples(spec: DatasetSpec, raw_dir: Path) -> list[RawSample]:
    """The samples by (split, id). Raises PipelineError for broken links, wrong counts, repeated ids, missing files."""
    for link in sorted(path for path in raw_dir.glob("*") if not path.exists()):
        raise PipelineError(
            f"{spec.name}: {link}: its target {link.readlink()} does not exist. If the data was moved, correct "
            f"`sources.{spec.name}` in params.yaml; then run `{DOWNLOAD_AGAIN}`"
        )
    samples = sorted(spec.samples(raw_dir), key=lambda sample: (sample.split, sample.id))
    counts = Counter(sample.split for sample in samples)
    problems = [
        f"split {split}: {counts[split]} images, expected {spec.splits.get(split, 0)}"
        for split in sorted({*counts, *spec.splits})
        if counts[split] != spec.splits.get(split, 0)
    ]
    if problems:
        problems[-1] += f"; for a part of the data declare `sources: {{{spec.name}: {{path: ..., images: {{...}}}}}}`"
    ids = Counter((sample.split, sample.id) for sample in samples)
    labelled = set(spec.splits) - set(spec.unlabelled_splits)
    twice = "occurs more than once in its split; with equal names in several folders, put the folder in front"
    problems += [f"{s.image}: id {s.id!r} {twice}" for s in samples if ids[s.split, s.id] > 1]
    problems += [f"{s.image}: has no label" for s in samples if s.label is None and s.split in labelled]
    problems += [f"{path}: missing" for s in samples for path in s.files if not path.is_file()]
    raise_problems(spec, problems)
    return samples


def raise_problems(spec: DatasetSpec, problems: Sequence[str]) -> None:
    """Raise PipelineError with the first 20 problems, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:_MAX_PROBLEMS])
        more = f"\n  and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise PipelineError(
            f"{spec.name}: {len(problems)} problems in the raw data:\n  {shown}{more}\n"
            "Replace these files in the source, or remove the raw folder and download again."
        )
