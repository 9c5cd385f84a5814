"""The command `export`: weights and card in a folder, and graphs that were compared with the network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.export.card import Card, Graph, card_path
from pipeline.export.graph import ENDINGS, GraphFormat, Size, compare, trace, write_graph
from pipeline.export.hub import write_readme
from pipeline.export.source import find_model
from pipeline.files.storage import file_digest, replacing, write_json
from pipeline.models import Segmentor


def export_model(root: Path, model: str, out: Path, formats: Sequence[GraphFormat], size: Size | None) -> None:
    """Write NAME.safetensors, NAME.json and a graph per format to `out`, replacing older ones, and print what they are.

    model: see `find_model`. size: fixed (height, width) of the graphs' input, None: any. Files appear once all were
    compared, and the card last. Raises PipelineError when a comparison fails, or when a graph of another format is left
    there; the folder is then unchanged.
    """
    source = find_model(root, model)
    network = source.load()
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{source.name}.safetensors"
    _require_no_other_graph(weights, formats)
    in_place = weights.exists() and weights.samefile(source.weights)  # an export to which graphs are added
    with ExitStack() as files:
        if not in_place:
            shutil.copyfile(source.weights, files.enter_context(replacing(weights)))
        graphs = _graphs(network, out, source.name, formats, size, files)
    described = source.card.weights.model_copy(update={"file": weights.name})
    card = source.card.model_copy(update={"weights": described, "graphs": graphs})
    write_json(card_path(weights), card.model_dump(mode="json"))
    print(f"{weights}\n{card_path(weights)}: {_scores(card)}")
    if write_readme(card, out):
        print(f"{out / 'README.md'}: kept, it was not written by an export")
    for graph in graphs:
        at = f"{graph.size[0]}x{graph.size[1]}" if graph.size else "several sizes"
        print(
            f"{out / graph.file}: compared with the network on {at}, largest difference of a logit "
            f"{graph.largest_difference:.2g} (the logits vary by {graph.logits_deviation:.2g})"
        )


def _require_no_other_graph(weights: Path, formats: Sequence[GraphFormat]) -> None:
    """Raise PipelineError for a graph beside `weights` that would stay there, perhaps of another network."""
    for format, ending in ENDINGS.items():
        path = weights.with_suffix(ending)
        if format not in formats and path.exists():
            raise PipelineError(
                f"{path}: a graph of an earlier export; write it again with `--format {format}`, or move it elsewhere"
            )


def _graphs(
    network: Segmentor, out: Path, name: str, formats: Sequence[GraphFormat], size: Size | None, files: ExitStack
) -> tuple[Graph, ...]:
    """Every format once, from one trace; a file gets its name when `files` closes."""
    if not formats:
        return ()
    program = trace(network, size)
    graphs = []
    for format in dict.fromkeys(formats):
        final = out / f"{name}{ENDINGS[format]}"
        path = files.enter_context(replacing(final))
        write_graph(program, format, path, size)
        difference, deviation = compare(network, format, path, size)
        about = {"file": final.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        compared = {"largest_difference": difference, "logits_deviation": deviation}
        graphs.append(Graph(**about, format=format, size=size, **compared))
    return tuple(graphs)


def _scores(card: Card) -> str:
    if card.evaluation is None:
        return "not evaluated yet; export again after `dvc repro` to have its scores in the card"
    single, multi = (100 * scores.miou for scores in (card.evaluation.single_scale, card.evaluation.ms_flip))
    return (
        f"mIoU {single:.2f} % single scale, {multi:.2f} % ms+flip, on {card.evaluation.images} images of "
        f"{card.evaluation.split}"
    )
