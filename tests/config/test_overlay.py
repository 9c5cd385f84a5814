"""One mapping over another: `extends` in benchmark files, the ablation, changes of `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.project import write_yaml

from pipeline.config import benchmark_ids, load_benchmark
from pipeline.config.overlay import overlay
from pipeline.errors import PipelineError


def write(project: Path, name: str, **data: Any) -> None:
    write_yaml(project / "params" / f"{name}.yaml", data)


def test_a_benchmark_is_the_one_it_extends_with_its_own_changes(project: Path) -> None:
    write(project, "mine", extends="tiny-fcn", description="mine", memory={}, schedule={"epochs": 7})
    base, mine = load_benchmark(project, "tiny-fcn"), load_benchmark(project, "mine")
    assert (mine.id, mine.schedule.epochs, mine.memory is None) == ("mine", 7, False)
    changed = {"id", "description", "memory", "schedule"}
    assert mine.model_dump(exclude=changed) == base.model_dump(exclude=changed)
    assert mine.schedule.batch_size == base.schedule.batch_size


def test_null_removes_a_section_of_the_extended_benchmark(project: Path) -> None:
    write(project, "mine", extends="tiny-fcn-mcibi", description="mine", memory=None, loss={"consistency": 0.0})
    assert load_benchmark(project, "mine").memory is None


def test_description_baseline_and_published_numbers_are_not_inherited_from_a_benchmark(
    project: Path, tiny: dict[str, Any]
) -> None:
    write(project, "row", **tiny, baseline="tiny-fcn", published={"model_zoo": {"single_scale": 44.0}})
    write(project, "mine", extends="row", description="mine")
    mine = load_benchmark(project, "mine")
    assert (mine.baseline, mine.published) == (None, None)
    write(project, "mine", extends="row")
    with pytest.raises(PipelineError, match=r"params/mine.yaml over params/row.yaml: description: required but absent"):
        load_benchmark(project, "mine")


def test_a_file_whose_name_begins_with_an_underscore_is_shared_and_not_a_benchmark(
    project: Path, tiny: dict[str, Any]
) -> None:
    question = {"key": "segmentor.dropout", "note": "never published"}
    write(project, "_shared", **tiny, published={"open_questions": [question]})
    write(project, "row", extends="_shared", description="row", published={"paper": {"single_scale": 44.0}})
    assert benchmark_ids(project) == ["row", "tiny-fcn", "tiny-fcn-mcibi"]
    published = load_benchmark(project, "row").published
    assert published is not None
    assert [item.key for item in published.open_questions] == ["segmentor.dropout"]
    with pytest.raises(PipelineError, match=r"params/_shared.yaml: shared keys, not a benchmark; choose one of row, "):
        load_benchmark(project, "_shared")


@pytest.mark.parametrize(
    ("shared", "parent", "message"),
    [
        ({"schedule": {"epoch": 7}}, "_shared", r"^params/_shared.yaml: schedule.epoch: unknown key; did you mean `ep"),
        ({}, "tiny-fnc", r"params/mine.yaml: extends: no params/tiny-fnc.yaml; did you mean `tiny-fcn`\?"),
        (
            {"extends": "tiny-fcn"},
            "_shared",
            "params/mine.yaml: extends: params/_shared.yaml extends params/tiny-fcn.yaml itself, .* one level",
        ),
    ],
)
def test_what_cannot_be_extended_names_the_file(project: Path, shared: Any, parent: str, message: str) -> None:
    write(project, "_shared", **shared)
    write(project, "mine", extends=parent, description="mine")
    with pytest.raises(PipelineError, match=message):
        load_benchmark(project, "mine")


def test_another_framework_drops_the_options_of_the_old_one() -> None:
    base = {"framework": "deeplabv3", "options": {"dilations": [1, 2]}, "channels": 8}
    assert overlay(base, {"framework": "fcn"}) == {"framework": "fcn", "channels": 8}
    assert overlay(base, {"framework": "pspnet", "options": {"bins": [1]}})["options"] == {"bins": [1]}
    assert overlay(base, {"framework": "deeplabv3", "options": {"x": 1}})["options"] == {"dilations": [1, 2], "x": 1}


def test_an_ablation_adds_no_section_inside_another_one(project: Path) -> None:
    plain = load_benchmark(project, "tiny-fcn")
    assert load_benchmark(project, "tiny-fcn", {"augmentation": {"rotation": {"probability": 0.1}}}) == plain


def test_an_ablation_cannot_rename_a_benchmark(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"params.yaml: ablation.id: unknown key; the file's name is the benchm"):
        load_benchmark(project, "tiny-fcn", {"id": "other"})


def test_an_ablation_that_replaces_a_value_by_a_mapping_is_an_error(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"with params.yaml ablation: schedule.epochs: .*valid integer"):
        load_benchmark(project, "tiny-fcn", {"schedule": {"epochs": {"many": 1}}})
