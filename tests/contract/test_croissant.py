"""`croissant.json` is valid by MLCommons' own library, which reads the set by way of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instruct_builder.croissant import CROISSANT, render_croissant
from instruct_builder.shards import Manifest, ShardSet
from tests.unit.instruct_builder.specimens import make_pairs, write_set

mlcroissant = pytest.importorskip("mlcroissant", reason="needs the extra `dev`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("croissant") / "set"
    manifest = write_set(folder, make_pairs(12))
    (folder / CROISSANT).write_bytes(render_croissant(manifest))
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Any:
    return mlcroissant.Dataset(jsonld=str(folder / CROISSANT))


def manifest_of(folder: Path) -> Manifest:
    return ShardSet.open(folder).manifest


def text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def test_nothing_is_wrong_and_only_what_nobody_knows_is_missing(dataset: Any) -> None:
    issues = dataset.metadata.issues
    assert not issues.errors
    missing = {"citeAs", "datePublished"}
    assert all(any(name in warning for name in missing) for warning in issues.warnings)


def test_the_context_is_that_of_the_specification(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant.Dataset(jsonld=str(folder / CROISSANT))
    assert "not standard" not in caplog.text
    told = json.loads((folder / CROISSANT).read_bytes())
    del told["@context"]["samplingRate"]
    (tmp_path / CROISSANT).write_text(json.dumps(told))
    mlcroissant.Dataset(jsonld=str(tmp_path / CROISSANT))
    assert "not standard" in caplog.text


def test_it_says_what_the_manifest_says(folder: Path) -> None:
    told = json.loads((folder / CROISSANT).read_bytes())
    manifest = manifest_of(folder)
    assert told["license"] == manifest.licence.statement
    files = {f["@id"]: f for f in told["distribution"] if f["@type"] == "cr:FileObject"}
    assert {name: file["sha256"] for name, file in files.items()} == {
        file.path: file.sha256 for file in manifest.files if file.rows is not None
    }
    assert manifest.statement in told["description"]
    assert "no proof of what decided anything" in told["description"]
    assert "takedown" in told["rai:personalSensitiveInformation"]


def test_rows_and_images_are_read_by_way_of_it(folder: Path, dataset: Any) -> None:
    rows = [row for table in ShardSet.open(folder).rows() for row in table.to_pylist()]
    found = list(dataset.records("instructions"))
    assert len(found) == len(rows)
    for record, row in zip(found, rows, strict=True):
        assert text(record["instructions/instruction_id"]) == row["instruction_id"]
        assert text(record["instructions/target"]) == row["target"]
        turns = [
            {name.rpartition("/")[2]: text(value) for name, value in turn.items()}
            for turn in record["instructions/messages"]
        ]
        assert turns == row["messages"]
    images = ShardSet.open(folder).images().to_pylist()
    read = list(dataset.records("images"))
    assert [record["images/width"] for record in read] == [image["width"] for image in images]
