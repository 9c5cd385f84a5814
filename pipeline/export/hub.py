"""The card as a README for the Hugging Face Hub: its metadata as YAML, then what a reader wants to know first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.config.schema import PROTOCOL_NAMES
from pipeline.export.card import Card, Evaluation, card_path

_MARK = "<!-- written by `python -m pipeline export` -->"


def write_readme(card: Card, folder: Path) -> bool:
    """Write `README.md` to `folder`, over an earlier one of an export; whether a README of another origin was kept."""
    path = folder / "README.md"
    if path.exists() and _MARK not in path.read_text(encoding="utf-8"):
        return True
    path.write_text(readme(card), encoding="utf-8")
    return False


def readme(card: Card) -> str:
    """Metadata and text. mIoU in percent with the 95 % interval over images, as in the card."""
    benchmark, licence, weights, origin = card.benchmark, card.licence, card.weights.file, card.provenance
    kind = benchmark.memory.kind if benchmark.memory else None
    memory = {"features": "the MCIBI feature memory", "distribution": "the MCIBI++ distribution memory"}
    network = f"{benchmark.segmentor.framework} with {memory.get(kind or '', 'no memory')}"
    metadata = yaml.safe_dump(_metadata(card), sort_keys=False, allow_unicode=True)
    commit = f"`{origin.commit or 'unknown'}`{' with uncommitted changes' if origin.dirty else ''}"
    return f"""---
{metadata}---
{_MARK}

# {benchmark.id}, seed {card.seed}

{benchmark.description} {network}, encoder `{benchmark.encoder.name}`, {len(card.classes)} classes.

{_scores(card.evaluation)}

The weights are `{weights}`. `{card_path(Path(weights)).name}` beside it holds the whole configuration, classes,
preprocessing and provenance. With the project's code:

```sh
python -m pipeline predict --model {weights} --images FOLDER --out FOLDER
```

Trained at commit {commit}, finished {origin.finished}.

**Licence of the data** ({licence.dataset}): {licence.terms} See {licence.homepage}. {licence.note}
"""


def _metadata(card: Card) -> dict[str, Any]:
    """Keys of a model card on the Hub."""
    method = {"features": ["mcibi"], "distribution": ["mcibi-plus-plus"]}
    kind = card.benchmark.memory.kind if card.benchmark.memory else None
    found: dict[str, Any] = {
        "license": "other",
        "license_name": f"terms-of-{card.licence.dataset}",
        "license_link": card.licence.homepage,
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", card.benchmark.segmentor.framework, *method.get(kind or "", [])],
    }
    if card.evaluation is None:
        return found
    dataset = {"name": card.licence.dataset, "type": card.licence.dataset, "split": card.evaluation.split}
    metrics = [
        {"type": "mean_iou", "name": f"mIoU, {words}", "value": round(100 * getattr(card.evaluation, key).miou, 2)}
        for key, words in PROTOCOL_NAMES.items()
    ]
    result = {"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}
    return found | {"model-index": [{"name": card.benchmark.id, "results": [result]}]}


def _scores(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "These weights were not evaluated."
    rows = [
        f"| {words} | {100 * scores.miou:.2f} | {100 * scores.miou_low:.2f} to {100 * scores.miou_high:.2f} |"
        for scores, words in ((getattr(evaluation, key), words) for key, words in PROTOCOL_NAMES.items())
    ]
    head = f"| {evaluation.images} images of {evaluation.split} | mIoU % | 95 % interval over images |\n|---|---:|---:|"
    return "\n".join([head, *rows])
