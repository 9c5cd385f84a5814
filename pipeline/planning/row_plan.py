"""One row to run: what it needs, what of that is here, and what it is expected to cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.checkpoints.download import recorded_weights
from pipeline.checkpoints.planned import PlannedWeights, weights_of
from pipeline.config import Benchmark, Project, load_benchmark
from pipeline.datasets import DatasetSpec, get_dataset
from pipeline.datasets.planned import path_and_images
from pipeline.layout import Layout
from pipeline.planning.cost import EvaluationCost, TrainingCost, build_on_meta, evaluation_cost, training_cost
from pipeline.planning.present import Presence, data_presence, weights_presence
from pipeline.results.published import changed_keys


@dataclass(frozen=True)
class RowPlan:
    """One row in one mode. `changes`: keys in which the ablation of params.yaml departs from the row's file."""

    root: Path
    project: Project
    benchmark: Benchmark
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    data: Presence
    weights: Presence

    @cached_property
    def spec(self) -> DatasetSpec:
        """The dataset, as much of it as params.yaml declares."""
        name = self.benchmark.dataset.name
        return get_dataset(name, path_and_images(self.project.sources.get(name))[1])

    @property
    def planned_weights(self) -> PlannedWeights:
        """The file that the row starts from."""
        return weights_of(self.benchmark, self.project.weights)

    @cached_property
    def training(self) -> TrainingCost | None:
        """One training; None when the published checkpoint is imported."""
        return training_cost(self.benchmark, self.spec, self.spec.splits) if self.benchmark.mode == "train" else None

    @cached_property
    def evaluation(self) -> EvaluationCost:
        """One evaluation. Where the labels of the test split are not public, the validation split is scored as well."""
        data = self.benchmark.dataset
        hidden = data.evaluation_split in self.spec.unlabelled_splits
        splits = {data.evaluation_split, *([data.validation_split] if hidden else [])}
        images = sum(self.spec.splits[split] for split in splits)
        return evaluation_cost(self.benchmark, self.spec, images, self.project.runtime.evaluation_batch)

    @cached_property
    def parameters(self) -> int:
        """Trainable numbers of the network, auxiliary heads included."""
        return sum(p.numel() for p in build_on_meta(self.benchmark, self.spec).parameters())

    @property
    def obstacle(self) -> str | None:
        """Why the row cannot start, with the remedy; None when it can."""
        name = self.benchmark.dataset.name
        if self.data.problem and (self.project.sources.get(name) is not None or not self.spec.public):
            return f"{name}: {self.data.problem}; correct `sources` in params.yaml"
        if not self.data.present and not self.spec.public:
            return (
                f"{name}: not on this machine, and to be had with an account or by hand only ({self.spec.homepage}); "
                f"get it there and set `sources: {{{name}: PATH}}` in params.yaml"
            )
        return self.weights.problem

    @property
    def data_copies(self) -> tuple[int, str]:
        """How many times the size of the archives the data will still take on disk, and in which forms.

        The prepared form is about as large as the archives; downloaded ones are kept and unpacked beside it.
        """
        layout, source = Layout(self.root), self.root / Path(self.data.path).expanduser()
        if (layout.prepared(self.spec.name) / "dataset.json").is_file():
            return 0, "the data is prepared already"
        if not self.data.present and self.spec.public:
            return 3, "archives, unpacked, and in the prepared form"
        if source.is_dir():
            return 1, "the prepared form"
        return 2, "unpacked, and in the prepared form"

    @property
    def memory_bytes(self) -> int:
        """Expected GPU memory of whatever needs more, training or evaluation."""
        return max(self.evaluation.memory_bytes, self.training.memory_bytes if self.training else 0)

    @property
    def seconds(self) -> float:
        """Expected time of all trainings and evaluations."""
        return len(self.seeds) * (self.evaluation.seconds + (self.training.seconds if self.training else 0))

    @property
    def weights_download(self) -> tuple[int, str]:
        """Bytes of the weight file and where the number comes from."""
        weights, layout = self.planned_weights, Layout(self.root)
        recorded = recorded_weights(layout)
        if weights.name in recorded:
            return recorded[weights.name]["bytes"], f"recorded in {layout.weights_lock.name}"
        if weights.kind == "imagenet":
            encoder = build_on_meta(self.benchmark, self.spec).encoder
            return 4 * sum(p.numel() for p in encoder.parameters()), "4 bytes per parameter of the encoder"
        return 4 * self.parameters, "4 bytes per parameter"


def plan_row(root: Path, project: Project, file: Benchmark, mode: str, seeds: tuple[int, ...]) -> RowPlan:
    """The row of a benchmark's `file`, in `mode` and under the ablation of params.yaml."""
    benchmark = load_benchmark(root, file.id, {**project.ablation, "mode": mode})
    weights = weights_presence(root, weights_of(benchmark, project.weights))
    data = data_presence(root, project, benchmark.dataset.name)
    return RowPlan(root, project, benchmark, tuple(changed_keys(file, benchmark)), seeds, data, weights)
