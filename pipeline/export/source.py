"""The model that a command names: a run of this project, or a safetensors file with its card beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.parse import nearest
from pipeline.errors import PipelineError
from pipeline.evaluation.run import load_model
from pipeline.export.card import Card, read_card
from pipeline.export.describe import describe_run
from pipeline.layout import Layout
from pipeline.models import Segmentor

_ENDING = ".safetensors"


@dataclass(frozen=True)
class Source:
    """A model's name for files and messages, its card, and the weight file that the card describes."""

    name: str
    card: Card
    weights: Path

    def load(self) -> Segmentor:
        """The network, in evaluation mode, on the CPU."""
        return load_model(self.card.benchmark, len(self.card.classes), self.weights)


def find_model(root: Path, model: str) -> Source:
    """`model`: BENCHMARK/SEED of `runs/train` (with or without that prefix), or the path of a safetensors file.

    Raises PipelineError, with what there is, for an unknown run, and for a file whose card is missing or does not fit.
    """
    if model.endswith(_ENDING):
        weights = Path(model)
        return Source(weights.stem, read_card(weights), weights)
    layout = Layout(root)
    runs = _runs(layout)
    name = model.strip("/").removeprefix("runs/train/")
    if name not in runs:
        near = nearest(name, runs)
        hint = f"did you mean `{near}`? " if near else ""
        there = f"available: {', '.join(runs)}" if runs else "there is none yet: `dvc repro` trains"
        raise PipelineError(f"--model {model}: no such run, and no {_ENDING} file; {hint}{there}")
    benchmark_id, seed = name.split("/")
    card, weights = describe_run(root, benchmark_id, int(seed))
    return Source(f"{benchmark_id}-seed{seed}", card, weights)


def _runs(layout: Layout) -> list[str]:
    """Every finished training as BENCHMARK/SEED."""
    folder = layout.root / "runs" / "train"
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/summary.json"))
