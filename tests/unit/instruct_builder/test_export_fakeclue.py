"""FakeVLM's layout: written from a set, and read back without loss by our own reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.records import Authenticity
from imaging.layouts import FoundFile, open_collection
from imaging.store import ImageStore
from instruct_builder.export import Format, export
from instruct_builder.export_files import folder_name
from instruct_builder.shards import ShardSet
from instruct_builder.topics import TOPICS, read_topics, topics_bytes, without
from tests.unit.instruct_builder.exports import make_set


@pytest.fixture
def made(tmp_path: Path) -> tuple[ShardSet, Path]:
    """A set in which every second image has a topic, and its export."""
    store = ImageStore(tmp_path / "store")
    shards = make_set(tmp_path / "set", store)
    ids = sorted(shards.images(["image_id"])["image_id"].to_pylist())
    named = dict.fromkeys(ids[::2], "my topic")
    (shards.folder / TOPICS).write_bytes(topics_bytes(named))
    out = tmp_path / "export"
    export(shards, out, format=Format.FAKECLUE, store=store)
    return shards, out


def records(out: Path) -> list[dict[str, Any]]:
    paths = sorted((out / "data_json").glob("*.json"))
    return [record for path in paths for record in json.loads(path.read_text(encoding="utf-8"))]


def test_a_record_has_the_published_fields_and_polarity(made: tuple[ShardSet, Path]) -> None:
    shards, out = made
    rows = {row["instruction_id"]: row for table in shards.rows() for row in table.to_pylist()}
    images = {row["image_id"]: row for row in shards.images().to_pylist()}
    topics = read_topics(shards.folder)
    found = records(out)
    assert found
    for record in found:
        row = rows[record["id"]]
        image = images[row["image_id"]]
        assert record["label"] == {"real": 1, "fake": 0}[row["label"]]
        assert record["cate"] == topics.get(row["image_id"], "")
        assert (record["width"], record["height"]) == (image["width"], image["height"])
        human, gpt = record["conversations"]
        assert human == {"from": "human", "value": f"<image>\n{row['messages'][0]['content']}"}
        assert gpt == {"from": "gpt", "value": row["messages"][1]["content"]}
        assert record["group"] == image["group"]
        assert row["target"] is None and row["aspect"] is None


def test_our_reader_reads_it_back_without_loss(made: tuple[ShardSet, Path]) -> None:
    _, out = made
    collection = open_collection(out)
    assert collection.layout == "fakeclue"
    files: dict[str, FoundFile] = {file.name: file for file in collection.files()}
    assert not [file for file in files.values() if file.refusal]
    told = [
        (
            record["image"],
            record["label"] == 1,
            record["cate"] or None,
            record["conversations"][0]["value"].removeprefix("<image>\n"),
            record["conversations"][1]["value"],
            record["generator"] or None,
            record["group"],
        )
        for record in records(out)
    ]
    read = [
        (
            name.split("/", 1)[1],
            file.label is Authenticity.REAL,
            file.topic,
            question.text,
            question.reference,
            file.generator,
            file.group,
        )
        for name, file in files.items()
        for question in file.questions
    ]
    assert sorted(map(str, read)) == sorted(map(str, told))
    for name, file in files.items():
        assert (out / name).read_bytes()
        assert len({question.key for question in file.questions}) == len(file.questions)


def test_a_topic_cannot_lead_out_of_the_folder() -> None:
    assert folder_name("../../etc") == "etc"
    assert folder_name("Äö/") == folder_name("..") == "unsorted"


def test_topics_of_images_that_leave_a_set_leave_it_too(made: tuple[ShardSet, Path]) -> None:
    shards, _ = made
    first, *rest = sorted(read_topics(shards.folder))
    assert sorted(json.loads(without(shards.folder, {first}))) == rest
