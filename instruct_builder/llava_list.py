"""Conversations in LLaVA's JSON, as general instruction sets are published.

A file is a list of `{"image": ..., "conversations": [{"from": "human", "value": ...}, ...]}`, or
one such object per line (`.jsonl`). It is read piece by piece: some have a gigabyte and more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from core.errors import ConfigError, DataError
from instruct_builder import conversations

MARK: Final = "<image>"
"""where the image stands"""
ROLES: Final[Mapping[str, str]] = {"human": "user", "gpt": "assistant"}
BLOCK: Final = 2**20
"""characters that are read at a time"""

Talk = tuple[str, ...]
"""question and answer in turn"""


def conversations_of(path: Path, unread: Counter[str] | None = None) -> Iterator[tuple[str, Talk]]:
    """Image and talk of each entry; those that cannot be read are counted in `unread` by reason.

    ConfigError when the file as a whole cannot be read.
    """
    for entry in _entries_of(path):
        try:
            yield conversation_of(entry)
        except DataError as error:
            if unread is not None:
                unread[str(error)] += 1


def _entries_of(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            else:
                yield from _entries_of_list(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON list of conversations: {error}") from None


def _entries_of_list(file: TextIO) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    text = file.read(BLOCK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not start with [")
    place = 1
    while True:
        while text[place : place + 1] in (*" \t\r\n,",):
            place += 1
        if text.startswith("]", place):
            return
        try:
            entry, place = decoder.raw_decode(text, place)
        except ValueError:
            rest = text[place:]
            block = file.read(max(BLOCK, len(rest)))
            if not block:
                raise
            text, place = rest + block, 0
        else:
            yield entry


def conversation_of(entry: Any) -> tuple[str, Talk]:
    """The image that an entry of LLaVA's JSON names, and what is said; DataError says why not."""
    image = entry.get("image") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not image:
        raise DataError("without one image")
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError("without a list of turns")
    texts = [turn.get("value") for turn in turns]
    roles = [ROLES.get(str(turn.get("from"))) for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("with a turn that is no text")
    opening, *rest = texts or [""]
    talk = (opening.replace(MARK, "", 1).strip(), *(text.strip() for text in rest))
    if not all(talk):
        raise DataError("with a turn that says nothing")
    row = {
        "instruction_id": None,
        "image_id": None,
        "image_path": None,
        "messages": [{"role": r, "content": t} for r, t in zip(roles, talk, strict=True)],
    }
    conversations.check(row)
    return image, talk
