"""`python -m pipeline check`: every mistake at once, else what would run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.project import edit_yaml, write_yaml

from pipeline.errors import PipelineError
from pipeline.planning.check import check


def problems(root: Path) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        check(root)
    return str(caught.value).splitlines()


def edit_benchmark(root: Path, name: str, **sections: Any) -> None:
    edit_yaml(root / "params" / f"{name}.yaml", **sections)


SHORT = {"description": "seconds", "order": [{"groups": ["all"], "seeds": [0]}]}
PLAIN = {"group": "all", "title": "FCN"}
CROP = {"augmentation": {"crop": [640, 32]}}


def write_study(root: Path, **keys: Any) -> None:
    study = {"title": "Does it help?", "benchmark": "tiny-fcn", "comparisons": {}}
    study |= {"sizes": {"short": SHORT}, "variants": {"plain": PLAIN}}
    write_yaml(root / "studies" / "try.yaml", study | keys)


def test_mistakes_of_all_files_are_listed_at_once_each_with_file_key_and_remedy(project: Path, tiny: Any) -> None:
    edit_yaml(
        project / "params.yaml",
        seds=[1],
        ablation={"memory": {"strtegy": "mean"}, "los": {"coarse": 1.0}},
        sources={"digts": "x"},
        weights={"tiny-fnc": "x"},
    )
    edit_benchmark(project, "tiny-fcn", encoder={"name": "resnet81"})  # chosen: its model is built
    edit_benchmark(project, "tiny-fcn-mcibi", baseline="tiny-fc", **CROP)
    write_yaml(project / "params" / "other.yaml", tiny | {"schedule": {"epoch": 1, "epochs": 2, "batch_size": 8}})
    write_yaml(project / "params" / "third.yaml", tiny | {"dataset": {"name": "digit", "validation_split": "v"}})
    write_study(project, rare_classes=["ones"])
    found = problems(project)
    for expected in (
        "studies/try.yaml: rare_classes: digits has no class 'ones'; did you mean `one`?",
        "params.yaml: seds: unknown key; did you mean `seeds`?",
        "params.yaml: ablation.memory.strtegy: unknown key; did you mean `strategy`?",
        "params.yaml: ablation.los: unknown key; did you mean `loss`?",
        "params.yaml: sources.digts: dataset 'digts': unknown; did you mean `digits`?",
        "params.yaml: weights.tiny-fnc: neither a benchmark nor ImageNet weights; did you mean `tiny-fcn`?",
        "params/tiny-fcn.yaml: encoder.name: 'resnet81' is unknown; did you mean `resnet18`?",
        "params/tiny-fcn-mcibi.yaml: baseline: no params/tiny-fc.yaml; did you mean `tiny-fcn`?",
        "params/tiny-fcn-mcibi.yaml: augmentation.crop: [640, 32] is larger than the largest training image",
        "params/other.yaml: schedule.epoch: unknown key; did you mean `epochs`?",
        "params/third.yaml: dataset.name: dataset 'digit': unknown; did you mean `digits`?",
    ):
        assert any(line.startswith(expected) for line in found), (expected, found)
    assert len(found) == 11
    assert len(found) == len(set(found))


def test_a_file_that_is_no_yaml_does_not_hide_the_others(project: Path, tiny: Any) -> None:
    (project / "params.yaml").write_text("benchmarks: [tiny-fcn\nseeds: [0]\n")
    (project / "params" / "broken.yaml").write_text("a: [1\nb: 2\n")
    write_yaml(project / "params" / "other.yaml", tiny | {"dataset": {"name": "digits", "train_splits": ["trian"]}})
    first, second, third = problems(project)
    assert first.startswith("params.yaml: not valid YAML: ")
    assert "line 2" in first
    assert second.startswith("params/broken.yaml: not valid YAML: ")
    assert third == "params/other.yaml: dataset.train_splits: digits has no split 'trian'; it has train, val, test"


def test_a_wrong_value_of_the_ablation_names_the_benchmarks_that_it_breaks(project: Path) -> None:
    edit_yaml(project / "params.yaml", ablation={"schedule": {"epochs": "many"}})
    assert [line.partition(" with ")[0] for line in problems(project)] == [
        "params/tiny-fcn.yaml",
        "params/tiny-fcn-mcibi.yaml",
    ]


def test_data_that_no_program_can_fetch_is_a_problem(project: Path, tiny: Any) -> None:
    splits = {"name": "lip", "evaluation_split": "val"}
    write_yaml(project / "params" / "people.yaml", tiny | {"dataset": splits})
    edit_yaml(project / "params.yaml", benchmarks=["people"])
    (line,) = problems(project)
    assert "set `sources: {lip: PATH}` in params.yaml" in line


def test_a_mistake_in_a_studys_benchmark_is_listed_once(project: Path) -> None:
    edit_benchmark(project, "tiny-fcn", encoder={"name": "resnet81"})
    edit_yaml(project / "params.yaml", benchmarks=["tiny-fcn-mcibi"])
    write_study(project)
    assert problems(project) == ["params/tiny-fcn.yaml: encoder.name: 'resnet81' is unknown; did you mean `resnet18`?"]


def test_one_variants_mistake_does_not_hide_what_another_does_not_fit(project: Path) -> None:
    variants = {"typo": PLAIN | {"set": {"memry": {}}}, "wide": PLAIN | {"set": CROP}}
    write_study(project, variants=variants)
    first, second = problems(project)
    assert first.startswith("studies/try.yaml: variants.typo: memry: unknown key; did you mean `memory`?")
    assert second.startswith("studies/try.yaml: variants.wide (short): augmentation.crop: [640, 32] is larger than")


def test_a_model_that_is_not_built_is_still_checked_for_names_that_do_not_exist(project: Path) -> None:
    edit_benchmark(project, "tiny-fcn-mcibi", segmentor={"framework": "fnc"})
    write_study(project, variants={"plain": PLAIN | {"set": {"encoder": {"name": "resnet81"}}}})
    edit_yaml(project / "params.yaml", benchmarks=["tiny-fcn"])
    assert problems(project) == [
        "params/tiny-fcn-mcibi.yaml: segmentor.framework: 'fnc' is unknown; did you mean `fcn`?",
        "studies/try.yaml: variants.plain (short): encoder.name: 'resnet81' is unknown; did you mean `resnet18`?",
    ]


def test_outside_a_repository_the_plan_is_shown_without_the_stages(project: Path) -> None:
    before = sorted(project.rglob("*"))
    text = check(project)
    assert re.search(r"tiny-fcn-mcibi +digits +resnet18 +yes +2 ", text)
    assert "which stages are up to date is unknown: dvc status --json: you are not inside of a DVC repository" in text
    assert sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts) == before


def test_data_that_changed_since_the_download_is_named_with_the_command_that_reads_it_again(
    prepared_project: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(prepared_project, tmp_path / "project")
    assert "changed since" not in check(root)
    image = next((root / "data" / "raw" / "digits").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"edited")
    last = check(root).splitlines()[-1]
    name = image.relative_to(root / "data" / "raw" / "digits")
    assert last.startswith(f"digits: {name} changed since `download` ran, ")
    assert last.endswith("run `dvc repro --force download`")


def test_an_unpacked_archive_names_the_command_that_goes_on_without_git(project: Path) -> None:
    (project / ".dvc").mkdir()
    assert re.search(
        r"is unknown: dvc status --json: .* is not a git repository; run `make reproduce` once", check(project)
    )
