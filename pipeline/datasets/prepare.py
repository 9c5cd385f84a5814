"""Stage `preprocess`: convert a raw dataset to the uniform form that training and evaluation read; check every file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.datasets import labels
from pipeline.datasets.download import checked_samples, dataset_code, raise_problems, raw_manifest
from pipeline.datasets.prepared import decode_image, file_bytes
from pipeline.datasets.spec import IGNORE_INDEX, DatasetSpec, RawSample
from pipeline.errors import PipelineError
from pipeline.files.locks import exclusive
from pipeline.files.pictures import exif_orientation, jpeg_damage, require_one_frame
from pipeline.files.storage import cached_json, file_digest, new_file, text_digest, with_path, write_json, write_png

_KEPT_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png"}  # copied byte for byte; others are re-encoded
_NAMED = 5  # pictures in a warning
# Label maps have flat areas of few values: without a filter they decode four times as fast as with OpenCV's default,
# and are smaller.
_LABEL_PNG = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
    *(cv2.IMWRITE_PNG_COMPRESSION, 6),
)


class Row(NamedTuple):
    """One row of `table.parquet`, see `Prepared.table`; the label's fields are None when there is no label."""

    id: str
    split: str
    image: str
    label: str | None
    height: int
    width: int
    histogram: list[int] | None
    image_sha256: str
    label_sha256: str | None  # of shape and pixels: PNG encoders differ between versions


_NUMBERS = {"height": pa.int32(), "width": pa.int32(), "histogram": pa.list_(pa.int64())}
_SCHEMA = pa.schema([(name, _NUMBERS.get(name, pa.string())) for name in Row._fields])


def prepare(spec: DatasetSpec, raw_dir: Path, out_dir: Path) -> None:
    """Write `images/`, `labels/` (train ids, 255 = ignore), `table.parquet` and `dataset.json` into `out_dir`.

    Does nothing if `out_dir` was made from the same raw files by the same code. Otherwise builds beside it and swaps at
    the end. Raises PipelineError that lists up to 20 problems: files that are missing, cannot be decoded, or have an
    unexpected size or label value; ids that occur twice; and splits with an unexpected number of images.
    """
    with exclusive(out_dir):
        recipe = _recipe(spec, raw_dir)
        if _is_result_of(recipe, out_dir):
            return
        temporary = out_dir.with_name(f"{out_dir.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        rows = _convert_all(spec, checked_samples(spec, raw_dir), temporary)
        table = pa.Table.from_pylist([row._asdict() for row in rows], schema=_SCHEMA)
        with new_file(temporary / "table.parquet") as stream:
            pq.write_table(table, stream)
        write_json(temporary / "dataset.json", {**_describe(spec, rows), "recipe": recipe})
        old = out_dir.with_name(f"{out_dir.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if out_dir.exists():
            out_dir.rename(old)
        temporary.rename(out_dir)
        shutil.rmtree(old, ignore_errors=True)


def _describe(spec: DatasetSpec, rows: Sequence[Row]) -> dict[str, object]:
    """Content of `dataset.json`: names, counts, share of ignored pixels and the fingerprint."""
    ignored: dict[str, float | None] = dict.fromkeys(spec.splits)  # None: a split without labels
    for split in spec.splits:
        histograms = [row.histogram for row in rows if row.split == split and row.histogram is not None]
        if histograms:
            pixels = np.sum(np.array(histograms, np.int64), axis=0)  # (K + 1,)
            ignored[split] = float(pixels[-1] / max(pixels.sum(), 1))
    identity = [[row.id, row.split, row.height, row.width, row.image_sha256, row.label_sha256] for row in rows]
    return {
        "name": spec.name,
        "num_classes": len(spec.classes),
        "classes": list(spec.classes),
        "splits": dict(spec.splits),
        "ignore_share": ignored,
        "fingerprint": text_digest(json.dumps(identity)),
    }


def _recipe(spec: DatasetSpec, raw_dir: Path) -> str:
    """Digest of all inputs: raw files, the dataset's definition, and the code of the conversion."""
    code = [Path(path).read_text(encoding="utf-8") for path in (__file__, labels.__file__)]
    return text_digest(json.dumps([raw_manifest(spec, raw_dir).sha256, dataset_code(spec), dict(spec.splits), *code]))


def _is_result_of(recipe: str, out_dir: Path) -> bool:
    if cached_json(out_dir / "dataset.json").get("recipe") != recipe or not (out_dir / "table.parquet").is_file():
        return False
    try:
        columns = pq.read_table(out_dir / "table.parquet", columns=["image", "label"]).to_pydict()
    except pa.ArrowInvalid:  # damaged
        return False
    return all((out_dir / path).is_file() for column in columns.values() for path in column if path is not None)


def _convert_all(spec: DatasetSpec, samples: Sequence[RawSample], out_dir: Path) -> list[Row]:
    problems: list[str] = []
    turned: list[str] = []  # pictures

    def convert(sample: RawSample) -> Row | None:
        try:
            row, alike = _convert(spec, sample, out_dir)
            if not alike:
                turned.append(sample.image.name)
            return row
        except PipelineError as error:
            problems.append(str(error))
            return None

    # Threads are enough: decoding, hashing and encoding all release the GIL.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(convert, samples), total=len(samples), desc=f"prepare {spec.name}", disable=None)
        rows = [row for row in bar if row is not None]
    raise_problems(spec, sorted(problems))
    if turned:
        print(
            f"{spec.name}: {len(turned)} pictures and their labels have different EXIF orientations, such as "
            f"{', '.join(sorted(turned)[:_NAMED])}; each is read upright. If they do not fit then, remove the EXIF data"
        )
    return rows


def _convert(spec: DatasetSpec, sample: RawSample, out_dir: Path) -> tuple[Row, bool]:
    """Write one image and its label; their row, and whether EXIF turns both alike.

    Raises PipelineError with the problem of this sample.
    """
    data = file_bytes(sample.image)
    image = decode_image(data, sample.image)  # (H, W, 3)
    if damage := jpeg_damage(data):
        raise PipelineError(f"{sample.image}: {damage}; decoders would go on with wrong pixels")
    require_one_frame(sample.image)
    size, tag = image.shape[:2], exif_orientation(data)
    if spec.image_size is not None and size != spec.image_size:
        raise PipelineError(f"{sample.image}: size {size}{_turned(tag)}, expected {spec.image_size} (height, width)")
    suffix = _KEPT_SUFFIXES.get(sample.image.suffix.lower())
    image_path = f"images/{sample.split}/{sample.id}{suffix or '.png'}"
    if suffix is None:
        write_png(out_dir / image_path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        digest = file_digest(out_dir / image_path)
    else:
        (out_dir / image_path).parent.mkdir(parents=True, exist_ok=True)
        with with_path(out_dir / image_path):
            (out_dir / image_path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
    row = Row(sample.id, sample.split, image_path, None, *size, None, digest, None)
    if sample.label is None:
        return row, True
    label_tag = exif_orientation(file_bytes(sample.label))
    label = labels.train_ids(spec, sample.label)  # (H, W)
    if label.shape != size:
        raise PipelineError(
            f"{sample.label}: size {label.shape}{_turned(label_tag)}, but {sample.image} has {size}{_turned(tag)} "
            "(height, width)"
        )
    label_path = f"labels/{sample.split}/{sample.id}.png"
    write_png(out_dir / label_path, label, _LABEL_PNG)
    counts = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
    histogram = [*counts[: len(spec.classes)].tolist(), int(counts[IGNORE_INDEX])]
    digest = hashlib.sha256(repr(label.shape).encode() + label.tobytes()).hexdigest()
    return row._replace(label=label_path, histogram=histogram, label_sha256=digest), tag == label_tag


def _turned(tag: int) -> str:
    return f" turned by EXIF orientation {tag}" if tag > 1 else ""
