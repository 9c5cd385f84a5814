"""The command `export`: weights and card in a folder, and graphs that were compared with the network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.config.parse import parse
from pipeline.errors import PipelineError
from pipeline.export.card import Card, Graph, card_path
from pipeline.export.graph import ENDINGS, GraphFormat, Size, compare, trace, write_graph
from pipeline.export.hub import write_readme
from pipeline.export.source import find_model
from pipeline.files.storage import file_digest, read_json, replacing, write_json
from pipeline.models import Segmentor

_NETWORK = ("encoder", "segmentor", "memory")  # sections of a benchmark: what a graph depends on besides the weights


def export_model(root: Path, model: str, out: Path, formats: Sequence[GraphFormat], size: Size | None) -> None:
    """Write NAME.safetensors, NAME.json and a graph per format to `out`, replacing older ones, and print what they are.

    model: see `find_model`. size: fixed (height, width) of the graphs' input, None: any. A graph of another format from
    an earlier export is kept, also in the card, if it is of the same network and weights; otherwise it is removed.
    Files appear once all were compared, and the card last. Raises PipelineError when a comparison fails, or for a graph
    of unknown origin; the folder is then unchanged.
    """
    source = find_model(root, model)
    network = source.load()
    out.mkdir(parents=True, exist_ok=True)
    weights = out / f"{source.name}.safetensors"
    kept, outdated = _earlier(source.card, weights, formats)
    in_place = weights.exists() and weights.samefile(source.weights)  # an export to which graphs are added
    with ExitStack() as files:
        if not in_place:
            shutil.copyfile(source.weights, files.enter_context(replacing(weights)))
        graphs = _graphs(network, out, source.name, formats, size, files)
    for path in outdated:
        path.unlink()
        print(f"{path}: removed; it is of other weights or another configuration")
    described = source.card.weights.model_copy(update={"file": weights.name})
    card = source.card.model_copy(update={"weights": described, "graphs": (*kept, *graphs)})
    write_json(card_path(weights), card.model_dump(mode="json"))
    print(f"{weights}\n{card_path(weights)}: {_scores(card)}")
    if write_readme(card, out):
        print(f"{out / 'README.md'}: kept, it was not written by an export")
    for graph in kept:
        print(f"{out / graph.file}: kept from an earlier export of these weights")
    for graph in graphs:
        at = f"{graph.size[0]}x{graph.size[1]}" if graph.size else "several sizes"
        print(
            f"{out / graph.file}: compared with the network on {at}, largest difference of a logit "
            f"{graph.largest_difference:.2g} (the logits vary by {graph.logits_deviation:.2g})"
        )


def _earlier(card: Card, weights: Path, formats: Sequence[GraphFormat]) -> tuple[list[Graph], list[Path]]:
    """Graphs beside `weights` of formats that are not written now: those that fit `card`, and the files of the others.

    Raises PipelineError for a graph whose origin is unknown: the card is missing or does not describe the file.
    """
    kept, outdated = [], []
    for format, ending in ENDINGS.items():
        path = weights.with_suffix(ending)
        if format in formats or not path.exists():
            continue
        remedy = f"write {path.name} again with `--format {format}`, or move it elsewhere"
        earlier = parse(Card, read_json(card_path(weights), remedy), str(card_path(weights)))
        graph = next((graph for graph in earlier.graphs if graph.format == format), None)
        if graph is None or (graph.bytes, graph.sha256) != (path.stat().st_size, file_digest(path)):
            raise PipelineError(f"{path}: not a graph that {card_path(weights).name} describes; {remedy}")
        same = all(getattr(earlier.benchmark, key) == getattr(card.benchmark, key) for key in _NETWORK)
        if same and earlier.weights.sha256 == card.weights.sha256:
            kept.append(graph)
        else:
            outdated.append(path)
    return kept, outdated


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
