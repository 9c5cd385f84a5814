"""The plan: what the chosen benchmarks start from, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.project import edit_yaml, make_project
from helpers.rows import make_rows_project

from pipeline.config import load_resolved
from pipeline.errors import PipelineError
from pipeline.layout import Layout
from pipeline.planning.plan import write_plan

ROW = "ade20k-resnet50os8"
RELEASES = "https://github.com/SegmentationBLWX/modelstore/releases/download"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_rows_project(tmp_path / "project", ade20k_resnet50os8={})


def planned_weights(root: Path) -> dict[str, Any] | None:
    write_plan(root, Layout(root).plan)
    return json.loads((Layout(root).plan / "weights.json").read_text()).get(ROW)


def test_an_imported_row_starts_from_its_checkpoint_of_the_paper_first(project: Path) -> None:
    assert planned_weights(project) == {
        "name": ROW,
        "urls": [
            f"{RELEASES}/ssseg_memorynet/deeplabv3_r50_ade20k.pth",
            f"{RELEASES}/ssseg_mcibi/mcibi_deeplabv3_r50_ade20k.pth",
        ],
        "file": None,
    }
    assert load_resolved(Layout(project).resolved_for("train", ROW)).mode == "import"


def test_a_trained_row_starts_from_imagenet_weights(project: Path) -> None:
    edit_yaml(project / "params.yaml", ablation={"mode": "train"})
    weights = planned_weights(project)
    assert (weights["name"], weights["file"]) == ("resnet50_v1c", None)
    assert weights["urls"][0].endswith("resnet50_v1c-2cccc1ad.pth")


def test_a_row_trained_from_other_weights_has_nothing_to_fetch(project: Path) -> None:
    edit_yaml(project / "params.yaml", ablation={"mode": "train"})
    path = project / "params" / f"{ROW}.yaml"
    row = yaml.safe_load(path.read_text())
    edit_yaml(path, encoder=row["encoder"] | {"weights": None})
    assert planned_weights(project) is None


def test_local_weights_are_planned_and_have_to_exist(project: Path) -> None:
    edit_yaml(project / "params.yaml", weights={ROW: "mine.pth"})
    with pytest.raises(PipelineError, match=f"weights.{ROW}: mine.pth: no such file"):
        write_plan(project, Layout(project).plan)
    (project / "mine.pth").touch()
    assert planned_weights(project)["file"] == "mine.pth"


def test_weights_for_nothing_are_an_error_with_the_nearest_name(project: Path) -> None:
    edit_yaml(project / "params.yaml", weights={"ade20k-resnet50os": "x", "resnet50_v1": "y"})
    with pytest.raises(PipelineError, match=rf"neither .* `{ROW}`(?s:.*)did you mean `resnet50_v1c`\?"):
        write_plan(project, Layout(project).plan)


def test_a_published_checkpoint_has_no_seeds(project: Path) -> None:
    edit_yaml(project / "params.yaml", seeds=[0, 1])
    with pytest.raises(PipelineError, match=rf"{ROW} is imported.*ablation: {{mode: train}}"):
        write_plan(project, Layout(project).plan)
    edit_yaml(project / "params.yaml", ablation={"mode": "train"})
    write_plan(project, Layout(project).plan)


def test_import_without_an_address_is_an_error(project: Path) -> None:
    edit_yaml(project / "params" / f"{ROW}.yaml", published=None)
    with pytest.raises(PipelineError, match=rf"params/{ROW}.yaml: mode: import needs the address"):
        write_plan(project, Layout(project).plan)


def test_splits_without_public_labels_cannot_train_or_validate(project: Path) -> None:
    row = "cityscapes-resnet50os8"
    edit_yaml(project / "params" / f"{row}.yaml", dataset={"name": "cityscapes", "validation_split": "test"})
    edit_yaml(project / "params.yaml", benchmarks=[row])
    with pytest.raises(PipelineError, match=r"dataset.validation_split: .*test are not public; choose from train, val"):
        write_plan(project, Layout(project).plan)


def test_a_batch_that_the_devices_cannot_share_is_an_error_unless_it_is_an_import(project: Path) -> None:
    edit_yaml(project / "params.yaml", runtime={"devices": 2, "nodes": 3})
    write_plan(project, Layout(project).plan)
    edit_yaml(project / "params.yaml", ablation={"mode": "train"})
    message = rf"devices: 2, nodes: 3, .* but {ROW} has schedule.batch_size: 16.* accumulate may be 1, 2, 4, 8, 16"
    with pytest.raises(PipelineError, match=message):
        write_plan(project, Layout(project).plan)


def test_a_declared_part_without_a_split_that_is_used_is_an_error(project: Path) -> None:
    edit_yaml(
        project / "params.yaml",
        benchmarks=["cityscapes-resnet50os8"],
        sources={"cityscapes": {"path": "city", "images": {"train": 20, "test": 5}}},
        ablation={"mode": "train"},
    )
    with pytest.raises(PipelineError, match=r"^params.yaml: sources.cityscapes.images.val: no images, but cityscapes-"):
        write_plan(project, Layout(project).plan)


def test_an_imported_row_needs_no_images_to_train_on(project: Path) -> None:
    (project / "ade").mkdir()
    edit_yaml(project / "params.yaml", sources={"ade20k": {"path": "ade", "images": {"val": 2}}})
    write_plan(project, Layout(project).plan)
    edit_yaml(project / "params.yaml", sources={"ade20k": {"path": "ade", "images": {"train": 2, "val": 0}}})
    with pytest.raises(PipelineError, match=r"sources.ade20k.images.val: no images, but ade20k-resnet50os8 uses"):
        write_plan(project, Layout(project).plan)


SIZES = [
    ("tu-swin_tiny_patch4_window7_224", r"cannot read a training crop \(32x32 pixels: .*224.*tu-resnet50c"),
    ("tu-hrnet_w18_small", r"cannot read a test image of 64x64 at scale 0.75 \(48x48 pixels: .*augmentation.crop"),
]


@pytest.mark.parametrize(("encoder", "message"), SIZES)
def test_an_encoder_that_cannot_read_a_crop_or_a_test_image_is_refused(
    tmp_path: Path, encoder: str, message: str
) -> None:
    root = make_project(tmp_path / "project")
    network = {"name": encoder, "weights": None, "output_stride": None, "depth": 5}
    edit_yaml(root / "params.yaml", ablation={"encoder": network, "inference": {"single_scale": {"scales": [0.75]}}})
    with pytest.raises(PipelineError, match=message):
        write_plan(root, Layout(root).plan)


def test_windows_spare_an_encoder_the_sizes_of_whole_images(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project")
    windows = {"mode": "slide", "crop": [32, 32], "stride": [16, 16], "scales": [0.75]}
    network = {"name": "tu-hrnet_w18_small", "weights": None, "output_stride": None, "depth": 5}
    edit_yaml(root / "params.yaml", ablation={"encoder": network, "inference": {"single_scale": windows}})
    assert "tu-hrnet_w18_small" in write_plan(root, Layout(root).plan)
