"""Archives for the server that scores Cityscapes' test split."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.schema import DatasetConfig
from pipeline.datasets import get_dataset, scored_split
from pipeline.errors import PipelineError
from pipeline.evaluation.submission import joined, submission_archives

IDS = get_dataset("cityscapes").submission_ids
PROTOCOLS = ("single_scale", "ms_flip")


def labels(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 19, (20, 30)).astype(np.uint8)


def write(
    folder: Path, names: Sequence[str] = ("test/bonn/bonn_1", "test/berlin/berlin_2"), rank: int = 0, world: int = 1
) -> Path:
    """The archives of one rank, which has its share of `names`."""
    with submission_archives(folder, PROTOCOLS, IDS, rank) as add:
        for i, name in list(enumerate(names))[rank::world]:
            add(name, {"single_scale": labels(i), "ms_flip": labels(100 + i)})
    return folder


def pixels(archive: Path, member: str) -> NDArray[np.uint8]:
    with zipfile.ZipFile(archive) as stream:
        image = Image.open(io.BytesIO(stream.read(member)))
    assert image.mode == "L"  # one channel of 8 bits, the label itself
    return np.array(image)


def test_one_archive_per_protocol_holds_one_picture_per_image(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission_ms_flip.zip", "submission_single_scale.zip"]
    with zipfile.ZipFile(tmp_path / "submission_ms_flip.zip") as archive:
        assert archive.namelist() == ["bonn_1.png", "berlin_2.png"]


def test_train_ids_become_the_servers_at_the_size_given(tmp_path: Path) -> None:
    write(tmp_path)
    written = pixels(tmp_path / "submission_ms_flip.zip", "bonn_1.png")
    assert np.array_equal(written, np.array(IDS)[labels(100)])
    assert (IDS[0], IDS[18]) == (7, 33)  # road and bicycle, by the dataset's own table


def test_the_bytes_depend_on_the_predictions_alone(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    for protocol in PROTOCOLS:
        name = f"submission_{protocol}.zip"
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_archives_of_several_ranks_are_joined_to_that_of_one(tmp_path: Path) -> None:
    names = [f"test/bonn/bonn_{i}" for i in range(5)]
    alone, together = write(tmp_path / "alone", names), tmp_path / "together"
    for rank in range(3):
        write(together, names, rank, world=3)
    for protocol in PROTOCOLS:
        assert joined(together, protocol, 3).read_bytes() == (alone / f"submission_{protocol}.zip").read_bytes()
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"same\.png: two images"):
        write(tmp_path, ("test/bonn/same", "test/berlin/same"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_evaluation_leaves_no_archive(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), submission_archives(tmp_path, PROTOCOLS, IDS) as add:
        add("bonn_1", {protocol: labels(0) for protocol in PROTOCOLS})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_validation_split_is_scored_where_labels_are_not_public() -> None:
    cityscapes, lip = get_dataset("cityscapes"), get_dataset("lip")
    assert scored_split(DatasetConfig(name="cityscapes"), cityscapes) == "val"
    assert scored_split(DatasetConfig(name="cityscapes", evaluation_split="val"), cityscapes) == "val"
    assert scored_split(DatasetConfig(name="lip", evaluation_split="val"), lip) == "val"
