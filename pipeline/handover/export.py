"""The command `export`: weights and card in a folder, and graphs that were compared with the network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.manifest import file_digest
from pipeline.files import replacing
from pipeline.handover.card import Card, Graph, card_path, write_card
from pipeline.handover.graph import ENDINGS, GraphFormat, Size, compare, trace, write_graph
from pipeline.handover.source import find_model
from pipeline.models import Segmentor


def export_model(root: Path, model: str, out: Path, formats: Sequence[GraphFormat], size: Size | None) -> None:
    """Write NAME.safetensors, NAME.json and a graph per format to `out`, replacing older ones, and print what they are.

    model: see `find_model`. size: fixed (height, width) of the graphs' input, None: any. The card is written last, so
    that it never stands beside files that were not compared. Raises PipelineError when a comparison fails.
    """
    source = find_model(root, model)
    network = source.load()
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{source.name}.safetensors"
    kept: tuple[Graph, ...] = ()
    if weights.exists() and weights.samefile(source.weights):  # an export that is to have further formats
        kept = tuple(graph for graph in source.card.graphs if graph.format not in formats)
    else:
        with replacing(weights) as path:
            shutil.copyfile(source.weights, path)
    graphs = _graphs(network, out, source.name, formats, size)
    own = source.card.weights.model_copy(update={"file": weights.name})
    card = source.card.model_copy(update={"weights": own, "graphs": (*kept, *graphs)})
    write_card(card, card_path(weights))
    print(f"{weights}\n{card_path(weights)}: {_scores(card)}")
    for graph in graphs:
        at = f"{graph.size[0]}x{graph.size[1]}" if graph.size else "several sizes"
        print(
            f"{out / graph.file}: compared with the network on {at}, largest difference of a logit "
            f"{graph.largest_difference:.2g} (the logits vary by {graph.logits_deviation:.2g})"
        )


def _graphs(
    network: Segmentor, out: Path, name: str, formats: Sequence[GraphFormat], size: Size | None
) -> tuple[Graph, ...]:
    """Every format once, from one trace."""
    if not formats:
        return ()
    program = trace(network, size)
    graphs = []
    for format in dict.fromkeys(formats):
        final = out / f"{name}{ENDINGS[format]}"
        with replacing(final) as path:
            write_graph(program, format, path, size)
            agreement = compare(network, format, path, size)
        graphs.append(
            Graph(
                file=final.name,
                bytes=final.stat().st_size,
                sha256=file_digest(final),
                format=format,
                size=size,
                largest_difference=agreement.largest_difference,
                logits_deviation=agreement.deviation,
            )
        )
    return tuple(graphs)


def _scores(card: Card) -> str:
    if card.evaluation is None:
        return "not evaluated yet; export again after `dvc repro` to have its scores in the card"
    single, multi = (100 * scores.miou for scores in (card.evaluation.single_scale, card.evaluation.ms_flip))
    return (
        f"mIoU {single:.2f} % single scale, {multi:.2f} % ms+flip, on {card.evaluation.images} images of "
        f"{card.evaluation.split}"
    )
