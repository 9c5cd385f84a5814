"""Chapter 10: where every number comes from, and what would spoil the comparison."""

from __future__ import annotations

from typing import Any

from pipeline.config import Benchmark
from pipeline.reporting.analysis import Analysis
from pipeline.reporting.content import Block, Code, Column, Note, Section, Table, Text
from pipeline.reporting.results import Result, Run, Study
from pipeline.reporting.sections.cost import hardware
from pipeline.reporting.wording import NONE, listing, memory_size, percent, plain


def section(analysis: Analysis) -> Section:
    """Warnings first, then configuration, runs, data, machines and libraries, and how to make it all again."""
    study = analysis.study
    runs = [(result, run) for result in study.results for run in result.runs]
    blocks: list[Block] = [Note(warning, kind="warning") for warning in warnings(study)]
    blocks += [
        _configuration(study),
        *([_checkpoints(study)] if len(study.trained) < len(study.results) else []),
        _runs(runs),
        _data(study),
        _machines([run for _, run in runs]),
        _libraries([run for _, run in runs]),
        Text(_again(study)),
        Code(_commands(study)),
    ]
    return Section("provenance", "Provenance", tuple(blocks))


def warnings(study: Study) -> list[str]:
    """What differs between runs or leaves their origin open; empty when all is as it should be."""
    runs = [(f"`{result.id}` seed {run.seed}", run) for result in study.results for run in result.runs]
    commits = sorted({run.cost["commit"] or "none" for _, run in runs})
    dirty = [name for name, run in runs if run.cost["dirty"]]
    unknown = [name for name, run in runs if not run.cost["commit"]]
    machines = sorted({hardware(run) for _, run in runs})
    precisions = sorted({run.summary["precision"] for _, run in runs})
    environments = {tuple(sorted(run.cost["libraries"].items())) for _, run in runs}
    found = []
    if len(commits) > 1:
        listed = listing([f"`{commit[:10]}`" for commit in commits])
        found.append(f"**Runs come from different commits**: {listed}.")
    if dirty:
        found.append(f"**Uncommitted changes** were present when these runs trained: {listing(dirty)}.")
    if unknown:
        found.append(f"**No commit is known** for {listing(unknown)}.")
    if len(machines) > 1:
        found.append(f"**Runs trained on different hardware**: {'; '.join(machines)}. Times do not compare.")
    if len(environments) > 1:
        found.append("**Library versions differ between runs**, see the list of libraries.")
    if len(precisions) > 1:
        found.append(f"**Precision differs between runs**: {listing(precisions)}.")
    if changes := ablated(study.project.ablation):
        found.append(
            f"**An ablation is laid over the benchmarks** ({listing(changes)}): they are not the published ones."
        )
    return found


def ablated(overlay: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys of params.yaml's ablation that are set, as `memory.strategy: mean`."""
    found: list[str] = []
    for key, value in overlay.items():
        if isinstance(value, dict):
            found += ablated(value, f"{prefix}{key}.")
        elif value is not None:
            found.append(f"`{prefix}{key}: {value}`")
    return found


def _configuration(study: Study) -> Table:
    columns = (
        *(Column("Benchmark", number=False), Column("Encoder", number=False), Column("Weights", number=False)),
        *(Column("Epochs"), Column("Batch"), Column("Crop"), Column("Optimizer", number=False), Column("Rate")),
        *(Column("Trained on", number=False), Column("Checkpoint", number=False)),
    )
    rows = []
    for result in study.results:
        b = result.benchmark
        rows.append(
            (
                f"`{b.id}`",
                plain(b.encoder.name),
                *(_IMPORTED if result.imported else _training(b)),
            )
        )
    return Table("What was trained (crop is height × width)", columns, tuple(rows))


_IMPORTED = ("published checkpoint", NONE, NONE, NONE, NONE, NONE, "not trained here", NONE)


def _training(b: Benchmark) -> tuple[str, ...]:
    return (
        plain(b.encoder.weights or "random"),
        str(b.schedule.epochs),
        str(b.schedule.batch_size),
        f"{b.augmentation.crop[0]}×{b.augmentation.crop[1]}",
        b.optimizer.name,
        f"{b.optimizer.lr:g}",
        f"{b.dataset.name} {' + '.join(b.dataset.train_splits)}",
        "last epoch" if b.inference.checkpoint == "last" else f"best on {b.dataset.validation_split}",
    )


def _checkpoints(study: Study) -> Table:
    """The published files that were imported."""
    columns = (
        *(Column("Benchmark", number=False), Column("Generation", number=False), Column("Bytes")),
        *(Column("sha256", number=False), Column("From", number=False)),
    )
    rows = []
    for result in study.results:
        if result.imported:
            file = result.runs[0].summary["checkpoint"]
            generation = {"model_zoo": "model zoo"}.get(file["generation"], file["generation"])
            origin = plain(file["url"] or f"local file {file['file']}")
            rows.append((f"`{result.id}`", generation, str(file["bytes"]), f"`{file['sha256']}`", origin))
    return Table("Imported checkpoints", columns, tuple(rows))


def _runs(runs: list[tuple[Result, Run]]) -> Table:
    columns = (
        *(Column("Benchmark", number=False), Column("Seed"), Column("Configuration", number=False)),
        *(Column("Run key", number=False), Column("Commit", number=False), Column("Finished", number=False)),
        *(Column("Device", number=False), Column("Precision", number=False)),
    )
    rows = tuple(
        (
            f"`{result.id}`",
            str(run.seed),
            f"`{run.summary['config_hash']}`",
            f"`{run.summary['run_key']}`",
            f"`{run.cost['commit'][:10]}`{' + changes' if run.cost['dirty'] else ''}" if run.cost["commit"] else NONE,
            run.cost["finished"].replace("T", " ")[:16],
            run.cost["device"],
            run.summary["precision"],
        )
        for result, run in runs
    )
    return Table("Runs (hashes of the configuration, and of configuration, seed, data and code)", columns, rows)


def _data(study: Study) -> Table:
    columns = (
        *(Column("Dataset", number=False), Column("Evaluated split", number=False), Column("Images")),
        *(Column("Classes"), Column("Ignored %"), Column("Fingerprint", number=False)),
    )
    seen: dict[tuple[str, str], Result] = {}
    for result in study.results:
        seen.setdefault((result.spec.name, result.split), result)
    rows = tuple(
        (
            f"`{name}`{' (declared part)' if result.is_part else ''}",
            split,
            str(len(result.ids)),
            str(len(result.spec.classes)),
            percent(result.prepared.info["ignore_share"][split]),
            f"`{result.prepared.info['fingerprint'][:16]}`",
        )
        for (name, split), result in seen.items()
    )
    return Table("Data", columns, rows)


def _machines(runs: list[Run]) -> Table:
    columns = (Column("Machine", number=False), Column("Memory"), Column("System", number=False), Column("Runs"))
    counted: dict[tuple[str, str, str], int] = {}
    for run in runs:
        machine = run.cost["hardware"]
        key = (hardware(run), memory_size(machine.get("memory_bytes")), plain(machine.get("platform") or NONE))
        counted[key] = counted.get(key, 0) + 1
    rows = tuple((*key, str(number)) for key, number in counted.items())
    return Table("Hardware of the trainings", columns, rows)


def _libraries(runs: list[Run]) -> Text:
    names = sorted({name for run in runs for name in run.cost["libraries"]}, key=str.lower)
    versions = {name: sorted({run.cost["libraries"].get(name, "absent") for run in runs}) for name in names}
    listed = [f"{plain(name)} {' or '.join(found)}" for name, found in versions.items()]
    return Text(f"**Libraries**: {', '.join(listed)}.")


def _again(study: Study) -> str:
    seeds = listing([str(seed) for seed in study.project.seeds])
    return (
        f"Seeds {seeds}. `dvc repro` at the root of the repository makes every file behind this report again, or "
        "restores it when nothing it depends on has changed. On a CPU a rerun gives the same weights, bit by bit, with "
        "the same libraries on the same kind of machine; on a GPU, some kernels add in varying order."
    )


def _commands(study: Study) -> str:
    states = {(run.cost["commit"], run.cost["dirty"]) for result in study.results for run in result.runs}
    only, dirty = next(iter(states)) if len(states) == 1 else (None, False)
    return f"git checkout {only}\ndvc repro" if only and not dirty else "dvc repro"
