"""A small set with every kind of row, its images, and strict readers of what is made of it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from core.ids import content_id, image_id_of, sha256_bytes
from core.records import Authenticity, ImageRecord, Instruction, Message, Split
from imaging.store import ImageStore
from instruct_builder.shards import (
    ROW_SCHEMA,
    Placed,
    ShardSet,
    ShardWriter,
    locked,
    rows_table,
    write_shards,
)
from tests.unit.instruct_builder.specimens import make_facts, make_pairs, place_all

DIALOGUE = (
    ("user", "What is odd about the edges?"),
    ("assistant", "They repeat.\n1. Left\n2. Right"),
    ("user", "Is it a photograph, then?"),
    ("assistant", "No."),
    ("user", 'And "why", 光?'),
    ("assistant", "Because <b>edges</b> repeat."),
)


def draw(seed: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (seed * 40 % 256, 10, 200)).save(buffer, kind)
    return buffer.getvalue()


def make_set(folder: Path, store: ImageStore, *, images: int = 6) -> ShardSet:
    """Photographs and fakes as JPEG and PNG; the first image has a dialogue too."""
    placed = [
        _with_file(item, store, number) for number, item in enumerate(place_all(make_pairs(images)))
    ]
    first = placed[0]
    placed[0] = replace(first, instructions=[*first.instructions, talk(first, DIALOGUE)])
    return write_placed(folder, placed)


def write_placed(folder: Path, placed: list[Placed]) -> ShardSet:
    write_shards(
        folder,
        [
            rows_table([item for item in placed if item.split is split])
            for split in Split
            if any(item.split is split for item in placed)
        ],
        [(item.image, item.split) for item in placed],
        make_facts(),
        rows_per_shard=40,
    )
    return ShardSet.open(folder)


def with_general_row(folder: Path, shards: ShardSet) -> ShardSet:
    """The same set with one more row, which is about no image."""
    tables = list(shards.rows())
    row = {
        "instruction_id": "ins-general",
        "family": "general",
        "form": "general",
        "template_id": "general",
        "messages": [
            {"role": "user", "content": "Name a river."},
            {"role": "assistant", "content": "The Nile."},
        ],
        "source": "a general set",
        "split": tables[-1]["split"][0].as_py(),
        "review_level": "draft",
    }
    tables.append(pa.Table.from_pylist([row], schema=ROW_SCHEMA))
    with locked(folder), ShardWriter(folder, rows_per_shard=10_000) as writer:
        for table in tables:
            writer.add_rows(table)
        images = shards.images().to_pylist()
        writer.add_images((ImageRecord(**_without_split(i)), Split(i["split"])) for i in images)
        writer.publish(make_facts())
    return ShardSet.open(folder)


def _without_split(image: dict[str, Any]) -> dict[str, Any]:
    label = Authenticity(image["label"])
    return {**{name: value for name, value in image.items() if name != "split"}, "label": label}


def talk(item: Placed, turns: tuple[tuple[str, str], ...], **changes: Any) -> Instruction:
    """Another instruction on an image."""
    row = replace(
        item.instructions[0],
        instruction_id=content_id("ins", item.image.image_id, turns),
        family="discussion",
        form="dialogue",
        target=None,
        messages=tuple(Message(role=role, content=content) for role, content in turns),
    )
    return replace(row, **changes)


def _with_file(item: Placed, store: ImageStore, number: int) -> Placed:
    kind, suffix = (("JPEG", ".jpg"), ("PNG", ".png"))[number % 2]
    data = draw(number, kind)
    digest = sha256_bytes(data)
    image = replace(
        item.image, image_id=image_id_of(digest), sha256=digest, path=store.add(data, suffix)
    )
    rows = [replace(row, image_id=image.image_id) for row in item.instructions]
    return replace(item, image=image, instructions=rows)


def rows_of(shards: ShardSet) -> dict[str, dict[str, Any]]:
    """All rows by id, in their order."""
    rows = [row for table in shards.rows() for row in table.to_pylist()]
    return {row["instruction_id"]: row for row in rows}


def read_llava(path: Path, *, mark: str = "<image>") -> dict[str, dict[str, Any]]:
    """What LLaVA's loader and preprocessing accept, and nothing else; texts as they were."""
    found: dict[str, dict[str, Any]] = {}
    records = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(records, list)
    for record in records:
        assert list(record) in (["id", "image", "conversations"], ["id", "conversations"])
        found[record["id"]] = {"image": record.get("image")} | _read_turns(record, mark)
    assert len(found) == len(records)
    return found


def _read_turns(record: dict[str, Any], mark: str) -> dict[str, Any]:
    turns = record["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    assert all(list(turn) == ["from", "value"] for turn in turns)
    marks = [len(re.findall(re.escape(mark), turn["value"])) for turn in turns]
    assert marks == [int("image" in record or bool(record.get("images"))), *[0] * (len(turns) - 1)]
    texts = [turn["value"] for turn in turns]
    if marks[0]:
        assert texts[0].startswith(mark)
        texts[0] = texts[0].removeprefix(mark).removeprefix("\n")
    return {"texts": texts}


def read_sharegpt(folder: Path) -> dict[str, dict[str, Any]]:
    """What LLaMA-Factory's documented schema allows, by way of its `dataset_info.json`."""
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {}
    for name, entry in info.items():
        assert re.fullmatch(r"fakeinstruct_(train|val|test)", name)
        assert set(entry) == {"file_name", "formatting", "columns", "tags"}
        assert entry["formatting"] == "sharegpt"
        assert entry["columns"] == {"messages": "conversations", "images": "images"}
        for line in (folder / entry["file_name"]).read_text(encoding="utf-8").split("\n")[:-1]:
            record = json.loads(line)
            images = record["images"]
            assert len(images) <= 1
            image = images[0] if images else None
            found[record["id"]] = {"image": image} | _read_turns(record, "<image>")
    return found


def as_told(rows: dict[str, dict[str, Any]], split: str | None = None) -> dict[str, dict[str, Any]]:
    """What those readers should find."""
    return {
        name: {
            "image": row["image_path"],
            "texts": [turn["content"] for turn in row["messages"]],
        }
        for name, row in rows.items()
        if split in (None, row["split"])
    }
