"""What is wrong with `params.yaml` and the benchmark files: every problem, one line each.

A line names the file, the key and the remedy. What a single file cannot say about itself is checked here: that its
dataset has the splits it names, that its crop fits, that its baseline exists, that its network can be built.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.checkpoints.imagenet import IMAGENET_FILES
from pipeline.checkpoints.planned import weights_of
from pipeline.config import Benchmark, Project, benchmark_ids, load_benchmark
from pipeline.config.limits import compile_problem, share_problem
from pipeline.config.parse import suggestion
from pipeline.config.schema import RuntimeConfig
from pipeline.config.study import StudyConfig
from pipeline.datasets import DatasetSpec, get_dataset, scored_split
from pipeline.datasets.planned import path_and_images
from pipeline.errors import PipelineError

_AWKWARD = (13, 7)  # pixels beyond the crop, so that no side is a multiple of a stride


def project_problems(root: Path, project: Project) -> list[str]:
    """What is wrong with params.yaml apart from single benchmarks."""
    problems = []
    repeated = sorted({b for b in project.benchmarks if project.benchmarks.count(b) > 1})
    if repeated:
        problems.append(f"params.yaml: benchmarks: {', '.join(repeated)} is listed more than once; list each once")
    for name, source in sorted(project.sources.items()):
        try:
            get_dataset(name, path_and_images(source)[1])
        except PipelineError as error:
            problems.append(f"params.yaml: sources.{name}: {error}")
    known = [*IMAGENET_FILES, *benchmark_ids(root)]
    return problems + [
        f"params.yaml: weights.{name}: neither a benchmark nor ImageNet weights; {suggestion(name, known, 'names')}"
        for name in project.weights
        if name not in known
    ]


def choice_problems(root: Path, project: Project, benchmark: Benchmark) -> list[str]:
    """What keeps params.yaml from running this valid benchmark: seeds, devices, a part of the data."""
    problems = []
    if benchmark.mode == "import" and len(project.seeds) > 1:
        problems.append(
            f"params.yaml: seeds: {list(project.seeds)}, but {benchmark.id} is imported (mode: import), and a "
            "published checkpoint has no seeds; give one seed, or train instead with `ablation: {mode: train}`"
        )
    problems += _part_problems(project, benchmark)
    found = (compile_problem(benchmark, project.runtime), share_problem(benchmark, project.runtime))
    return problems + [problem for problem in found if problem]


def file_problems(root: Path, benchmark_id: str) -> list[str]:
    """Problems of `params/<benchmark_id>.yaml` without any ablation and without building its network."""
    try:
        benchmark = load_benchmark(root, benchmark_id)
    except PipelineError as error:
        return str(error).splitlines()
    return benchmark_problems(root, benchmark) + name_problems(benchmark, f"params/{benchmark_id}.yaml")


def name_problems(benchmark: Benchmark, where: str) -> list[str]:
    """Framework, encoder and options that do not exist: cheap to find without building the network."""
    from pipeline.models.context import framework_options  # imports torch, which takes seconds
    from pipeline.models.encoder import encoder_options

    problems = []
    for typed, config in ((framework_options, benchmark.segmentor), (encoder_options, benchmark.encoder)):
        try:
            typed(config)
        except PipelineError as error:
            problems += [f"{where}: {line}" for line in str(error).splitlines()]
    return problems


def benchmark_problems(root: Path, benchmark: Benchmark, where: str | None = None) -> list[str]:
    """What a benchmark's own file cannot know: its dataset, its weights, the other files.

    where: what the lines begin with, else its file in params/.
    """
    where = where or f"params/{benchmark.id}.yaml"
    problems = []
    try:
        spec = get_dataset(benchmark.dataset.name)
        if benchmark.memory is not None and len(spec.classes) < 2:
            problems.append(f"memory: {spec.name} has {len(spec.classes)} class; a memory needs at least two")
        problems += [*_split_problems(benchmark, spec), *_size_problems(benchmark, spec)]
    except PipelineError as error:
        problems.append(f"dataset.name: {error}")
    if benchmark.mode == "import" and not (benchmark.published and benchmark.published.checkpoints):
        problems.append("mode: import needs the address of a checkpoint in `published.checkpoints`")
    try:
        weights_of(benchmark, {})
    except PipelineError as error:
        problems.append(str(error))
    known = benchmark_ids(root)
    if benchmark.baseline is not None and benchmark.baseline not in known:
        hint = suggestion(benchmark.baseline, known, "benchmarks")
        problems.append(f"baseline: no params/{benchmark.baseline}.yaml; {hint}")
    return [f"{where}: {problem}" for problem in problems]


def checked_parameters(benchmark: Benchmark, runtime: RuntimeConfig) -> int:
    """Parameters of the benchmark's network, built without content and run at the sizes that it will meet.

    Raises PipelineError when it cannot be built, cannot read a training crop or a test image, or cannot be trained
    on as few images at once as `runtime` leaves to it.
    """
    import torch  # takes seconds, which a typo should not have to wait for

    from pipeline.models import build_segmentor
    from pipeline.models.encoder import check_sizes, needs_two_images

    spec = get_dataset(benchmark.dataset.name)
    try:
        with torch.device("meta"):
            model = build_segmentor(benchmark, len(spec.classes), pretrained=False)
            check_sizes(model, benchmark.encoder.name, _network_sizes(benchmark, spec))
    except PipelineError as error:
        raise PipelineError(f"params/{benchmark.id}.yaml: {error}") from error
    if benchmark.mode == "train":
        least = 2 if needs_two_images(model, benchmark.augmentation.crop) else 1
        if problem := share_problem(benchmark, runtime, least):
            raise PipelineError(problem)
    return sum(p.numel() for p in model.parameters())


def _network_sizes(benchmark: Benchmark, spec: DatasetSpec) -> dict[tuple[int, int], str]:
    """(height, width) of what the network reads, and what has that size; of images of any size, an awkward example."""
    crop, inference = benchmark.augmentation.crop, benchmark.inference
    sizes = {crop: "a training crop"} if benchmark.mode == "train" else {}
    for protocol in inference.protocols.values():
        resize = inference.resized(protocol)
        fixed = spec.image_size if resize is None else resize.size
        height, width = fixed or (crop[0] + _AWKWARD[0], crop[1] + _AWKWARD[1])
        for scale, view in protocol.view_sizes(height, width).items():
            sizes.setdefault(view, f"a test image of {height}x{width} at scale {scale:g}")
    return sizes


def _split_problems(benchmark: Benchmark, spec: DatasetSpec) -> list[str]:
    data = benchmark.dataset
    named = [*(("train_splits", split) for split in data.train_splits), ("validation_split", data.validation_split)]
    problems = [
        f"dataset.{key}: {spec.name} has no split {split!r}; it has {', '.join(spec.splits)}"
        for key, split in [*named, ("evaluation_split", data.evaluation_split)]
        if split not in spec.splits
    ]
    labelled = ", ".join(split for split in spec.splits if split not in spec.unlabelled_splits)
    return problems + [
        f"dataset.{key}: the labels of {spec.name} {split} are not public; choose from {labelled}"
        for key, split in named
        if split in spec.unlabelled_splits
    ]


def _part_problems(project: Project, benchmark: Benchmark) -> list[str]:
    """Splits of a declared part that have no images, although the benchmark trains, validates or is scored on them."""
    data = benchmark.dataset
    images = path_and_images(project.sources.get(data.name))[1]
    if images is None:
        return []
    used = [scored_split(data, get_dataset(data.name))]
    if benchmark.mode == "train":
        used += [data.validation_split, *data.train_splits]
    return [
        f"params.yaml: sources.{data.name}.images.{split}: no images, but {benchmark.id} uses this split in `dataset`; "
        "say how many the part has, or name another"
        for split in dict.fromkeys(used)
        if not images.get(split)
    ]


def _size_problems(benchmark: Benchmark, spec: DatasetSpec) -> list[str]:
    """A crop larger than any training image can get would be mostly padding."""
    augmentation, crop = benchmark.augmentation, benchmark.augmentation.crop
    if augmentation.resize is not None:
        resize = augmentation.resize
        largest = resize.size if resize.size is not None else (resize.long, resize.long)
    elif spec.image_size is not None:
        largest = spec.image_size
    else:
        return []
    reach = tuple(int(side * augmentation.scale[1]) for side in largest)
    if crop[0] <= reach[0] and crop[1] <= reach[1]:
        return []
    return [
        f"augmentation.crop: {list(crop)} is larger than the largest training image, {list(reach)} "
        f"(augmentation.resize or the prepared size, times scale {augmentation.scale[1]}); use a smaller crop"
    ]


def rare_class_problems(root: Path, name: str, config: StudyConfig) -> list[str]:
    """Rare classes of `studies/<name>.yaml` that its dataset does not have."""
    dataset = load_benchmark(root, config.benchmark).dataset.name
    classes = get_dataset(dataset).classes
    return [
        f"studies/{name}.yaml: rare_classes: {dataset} has no class {rare!r}; {suggestion(rare, classes, 'classes')}"
        for rare in config.rare_classes
        if rare not in classes
    ]
