"""Rows of a shard set as other trainers read them: pure functions from a row to a record.

The set says that the image stands before the first user turn; formats that mark its place in the
text get their mark there, once, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from core.errors import DataError
from core.records import Authenticity

Row = Mapping[str, Any]
Record = dict[str, Any]

SPEAKERS: Final = {"user": "human", "assistant": "gpt"}
POLARITY: Final = {Authenticity.FAKE.value: 0, Authenticity.REAL.value: 1}
"""of FakeVLM's labels, inverted against those of most detectors"""
MARKS: Final = re.compile(r"<\|?(?:image|video|audio|vision)\w*\|?>", re.IGNORECASE)
"""what one trainer or another takes for the place of an image, wherever it stands in a text"""
_NAME: Final = re.compile(r"[\w-]+", re.ASCII)


def check(row: Row) -> None:
    """A DataError when a row cannot be told to another trainer as it is.

    A text that itself holds the mark of an image would be read as a second image.
    """
    for name in ("instruction_id", "image_id"):
        if row[name] is not None and not _NAME.fullmatch(row[name]):
            raise DataError(f"whose {name.replace('_', ' ')} is none that a file can be named by")
    path = PurePosixPath(row["image_path"] or "")
    if path.is_absolute() or ".." in path.parts:
        raise DataError("whose image path leaves the image store")
    roles = [turn["role"] for turn in row["messages"]]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError("whose turns are not question and answer in turn")
    for turn in row["messages"]:
        if found := MARKS.search(turn["content"]):
            raise DataError(f"whose text holds {found[0]}, which trainers take for an image")


def llava(row: Row, *, mark: str = "<image>") -> Record:
    """One record of LLaVA's JSON; `image` is relative to its `--image_folder`."""
    record: Record = {"id": row["instruction_id"]}
    if row["image_path"] is not None:
        record["image"] = row["image_path"]
    return record | {"conversations": _turns(row, f"{mark}\n")}


def fakeclue(row: Row, image: str, facts: Mapping[str, Any]) -> Record:
    """One record of FakeVLM's JSON; `image` is relative to the folder of its split.

    The last two fields are ours: there, nothing says which generator made a fake.
    """
    return {
        "id": row["instruction_id"],
        "image": image,
        "label": POLARITY[row["label"]],
        "cate": facts["topic"] or "",
        "width": facts["width"],
        "height": facts["height"],
        "conversations": _turns(row, "<image>\n"),
        "generator": row["generator"] or "",
        "group": facts["group"],
    }


def check_fakeclue(row: Row) -> None:
    """A DataError for what FakeVLM's format has no place for: all but one explained verdict."""
    if row["label"] is None or row["aspect"] is not None or row["target"] is not None:
        raise DataError("which is no explained verdict")
    if len(row["messages"]) != 2:
        raise DataError("which is no single question and answer")


def mplug_owl2(row: Row) -> Record:
    """The same with the mark that mPLUG-Owl2 knows."""
    return llava(row, mark="<|image|>")


def sharegpt(row: Row) -> Record:
    """One record as LLaMA-Factory reads `sharegpt`; paths are relative to its `media_dir`."""
    path = row["image_path"]
    images = [] if path is None else [path]
    return {"conversations": _turns(row, "<image>"), "images": images, "id": row["instruction_id"]}


def trl(row: Row) -> Record:
    """One record of TRL's conversational format; its collator puts the image where it belongs."""
    path = row["image_path"]
    return {
        "messages": [dict(turn) for turn in row["messages"]],
        "images": [] if path is None else [path],
        "id": row["instruction_id"],
    }


def webdataset(row: Row) -> Record:
    """One instruction of a sample; the sample is the image."""
    names = ("instruction_id", "family", "form", "aspect", "target", "review_level")
    talk = [dict(turn) for turn in row["messages"]]
    return {name: row[name] for name in names} | {"messages": talk}


def _turns(row: Row, opening: str) -> list[Record]:
    turns = [{"from": SPEAKERS[t["role"]], "value": t["content"]} for t in row["messages"]]
    if row["image_path"] is not None:
        turns[0]["value"] = opening + turns[0]["value"]
    return turns
