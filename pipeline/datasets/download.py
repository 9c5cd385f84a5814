"""Stage `download`: fill the raw store of a dataset and write down what is in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline.datasets.manifest import Manifest, dataset_code, raw_manifest
from pipeline.datasets.samples import checked_samples
from pipeline.datasets.spec import DatasetSpec
from pipeline.files.locks import exclusive
from pipeline.files.storage import cached_json, write_json

FETCHED = ".fetched.json"  # in the raw store: what its content came from, written when it is complete


def download(spec: DatasetSpec, raw_dir: Path, source: str | None, sources_file: Path) -> None:
    """Fetch `spec` from `source` (local folder or archive; None: the public address) into `raw_dir`.

    Writes `sources_file`: {"dataset", "source", "files", "bytes", "sha256"}, the digest of `raw_manifest`. Nothing is
    fetched when the store is complete, unchanged, and came from the same source by the same code. Two processes take
    turns. Raises PipelineError, with the remedy, when the source cannot be had or does not hold the dataset: as many
    images as `spec.splits` says, each with its label. They are counted here, and opened by `prepare`.
    """
    with exclusive(raw_dir):
        raw_dir.mkdir(parents=True, exist_ok=True)
        origin = {"source": source, "code": dataset_code(spec)}
        manifest = _complete(spec, raw_dir, origin)
        if manifest is None:
            (raw_dir / FETCHED).unlink(missing_ok=True)
            spec.fetch(raw_dir, source)
        checked_samples(spec, raw_dir)  # also of a complete store: another number may be expected of it by now
        if manifest is None:
            manifest = raw_manifest(spec, raw_dir)
            write_json(raw_dir / FETCHED, {**origin, "sha256": manifest.sha256})
        write_json(sources_file, {"dataset": spec.name, "source": source, **asdict(manifest)})


def _complete(spec: DatasetSpec, raw_dir: Path, origin: dict[str, str | None]) -> Manifest | None:
    """The store's manifest when nothing has to be fetched, else None."""
    fetched = cached_json(raw_dir / FETCHED)
    if not fetched or any(fetched.get(key) != value for key, value in origin.items()):
        return None
    manifest = raw_manifest(spec, raw_dir)
    return manifest if manifest.sha256 == fetched.get("sha256") else None
