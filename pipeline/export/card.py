"""The card of a trained model: a JSON file beside the weights that says everything needed to rebuild and run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from pipeline.config import Benchmark
from pipeline.config.parse import parse
from pipeline.config.schema import Section
from pipeline.datasets import IGNORE_INDEX
from pipeline.datasets.transforms import MEAN, STD
from pipeline.errors import PipelineError
from pipeline.files.storage import file_digest, read_json
from pipeline.results.record import ProtocolScores

Colour = tuple[int, int, int]


class Preprocessing(Section):
    """From a file to the network's input; the resize of the test image is in `benchmark.inference`."""

    steps: tuple[str, ...] = (
        "decode to RGB, 8 bits per channel, orientation of the EXIF data applied",
        "resize as benchmark.inference says, bilinear without antialiasing; null: not at all",
        "subtract mean, divide by std",
        "arrange as (B, 3, H, W) float32",
    )
    colour_order: Literal["RGB"] = "RGB"
    value_range: tuple[float, float] = (0.0, 255.0)  # of the values that mean and std are given for
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    @model_validator(mode="after")
    def _as_here(self) -> Preprocessing:
        for key, expected in (("mean", MEAN), ("std", STD), ("value_range", (0.0, 255.0))):
            if getattr(self, key) != expected:
                raise ValueError(f"{key} is {getattr(self, key)}, but this version of the project uses {expected}")
        return self


class Labels(Section):
    """What the numbers in a label map mean."""

    convention: str = "a pixel's label is the position of its class in `classes`, from 0"
    ignore_index: Literal[255] = IGNORE_INDEX  # in training labels only; never predicted


class Output(Section):
    """What the network returns, in this project and as an exported graph."""

    logits: str = "(B, K, h, w) float32 at feature resolution, K as in `classes`"
    label_map: str = "resize the logits to the original (H, W), bilinear with align_corners False, then argmax over K"


class Evaluation(Section):
    """What these weights scored under the two protocols of `benchmark.inference`."""

    split: str
    images: int
    single_scale: ProtocolScores
    ms_flip: ProtocolScores


class Provenance(Section):
    """Where the weights come from."""

    config_hash: str
    run_key: str
    data_fingerprint: str
    precision: str
    started_from: str | None  # sha256 of the weight file that the training started from, or that was imported
    checkpoint: dict[str, Any] | None  # the published file, mode import
    commit: str | None
    dirty: bool  # the code differed from that commit
    finished: str  # ISO 8601
    libraries: dict[str, str]


class Licence(Section):
    """Terms of the data that the weights were learned from; those of the code are in the project's LICENSE."""

    dataset: str
    terms: str
    homepage: str
    note: str = (
        "Weights learned from data, and published weights, are subject to the terms of their owners, whatever the "
        "licence of this project's code: read them before you pass the weights on or use them commercially."
    )


class File(Section):
    """A file beside the card."""

    file: str
    bytes: int
    sha256: str


class Weights(File):
    """The safetensors file: the network's whole state dict, the memory included."""

    checkpoint: Literal["last", "best"]


class Graph(File):
    """An exported graph and how far its logits are from the network's own."""

    format: Literal["torch", "onnx"]
    size: tuple[int, int] | None  # fixed (height, width) of the input; null: any
    largest_difference: float  # of a logit, over all checked inputs
    logits_deviation: float  # standard deviation of the logits it was compared with


class Card(Section):
    """The whole card. `card` is the version of this format."""

    card: Literal[1] = 1
    benchmark: Benchmark  # resolved: every default written out
    seed: int
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]  # RGB per class
    flip_pairs: tuple[tuple[int, int], ...]  # (left, right) classes that change places in a mirror image
    preprocessing: Preprocessing = Preprocessing()
    labels: Labels = Labels()
    output: Output = Output()
    evaluation: Evaluation | None  # null: not evaluated
    provenance: Provenance
    licence: Licence
    weights: Weights
    graphs: tuple[Graph, ...] = ()

    @model_validator(mode="after")
    def _one_colour_each(self) -> Card:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"palette has {len(self.palette)} colours for {len(self.classes)} classes")
        return self


def card_path(weights: Path) -> Path:
    """The card of a safetensors file: the same name, ending in .json."""
    return weights.with_suffix(".json")


def read_card(weights: Path) -> Card:
    """The card of a safetensors file.

    Raises PipelineError when either is missing, the card is malformed, or the sha256 of the weights differs from it.
    """
    path = card_path(weights)
    for file in (weights, path):
        if not file.is_file():
            raise PipelineError(
                f"{file}: no such file; an exported model is two files, {weights.name} and {path.name}, as "
                "`python -m pipeline export` writes them; a run is named BENCHMARK/SEED"
            )
    card = parse(Card, read_json(path, "copy the card again"), str(path))
    digest = file_digest(weights)
    if digest != card.weights.sha256:
        raise PipelineError(
            f"{weights}: sha256 {digest}, but its card says {card.weights.sha256}; copy weights and card again, both "
            "from one export"
        )
    return card
