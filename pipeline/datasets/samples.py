"""The samples of a raw store, checked against what the dataset should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.manifest import sample_files
from pipeline.datasets.spec import DatasetSpec, RawSample
from pipeline.errors import PipelineError

_MOST_PROBLEMS = 20  # reported at once


def checked_samples(spec: DatasetSpec, raw_dir: Path) -> list[RawSample]:
    """The samples by (split, id), once they are as many as expected, their ids differ and their files exist.

    Raises PipelineError that names up to 20 problems; files are not opened.
    """
    samples = sorted(spec.samples(raw_dir), key=lambda sample: (sample.split, sample.id))
    counts = Counter(sample.split for sample in samples)
    problems = [
        f"split {split}: {counts[split]} images, expected {spec.splits.get(split, 0)}"
        for split in sorted({*counts, *spec.splits})
        if counts[split] != spec.splits.get(split, 0)
    ]
    if problems:
        problems[-1] += f"; for a part of the data declare `sources: {{{spec.name}: {{path: ..., images: {{...}}}}}}`"
    repeated = {i for i, n in Counter(sample.id for sample in samples).items() if n > 1}
    problems += [f"{s.image}: id {s.id!r} occurs more than once" for s in samples if s.id in repeated]
    problems += [f"{s.image}: has no label" for s in samples if s.label is None and _labelled(spec, s.split)]
    problems += [f"{path}: missing" for s in samples for path in sample_files(s) if not path.is_file()]
    raise_problems(spec, problems)
    return samples


def raise_problems(spec: DatasetSpec, problems: Sequence[str]) -> None:
    """Raise PipelineError with the first 20 problems, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:_MOST_PROBLEMS])
        more = f"\n  and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise PipelineError(
            f"{spec.name}: {len(problems)} problems in the raw data:\n  {shown}{more}\n"
            "Replace these files in the source, or remove the raw folder and download again."
        )


def _labelled(spec: DatasetSpec, split: str) -> bool:
    return split in spec.splits and split not in spec.unlabelled_splits
