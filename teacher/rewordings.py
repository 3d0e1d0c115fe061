"""How the rehearsal teacher rewords: by the replacements in a recipe's `rewriting.yaml`.

No language model is at work. Variant n of a text takes the n-th replacement of every phrase that
occurs in it. Told to fail, it turns facts instead: numbers, sides and negations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.ids import seed_of
from core.recipe import read_model
from core.rewriting import REWRITING_FILE, Rewriting
from teacher.request import reply_keys

Replacements = Mapping[str, Sequence[str]]
REPLY_KEYS = ("rewordings",)


def read_replacements(recipe_folder: Path) -> Replacements:
    """The replacements of a recipe; none where it has no rewriting stage."""
    path = recipe_folder / REWRITING_FILE
    return read_model(path, Rewriting).rehearsal if path.is_file() else {}


def is_rewording(reply_schema: str) -> bool:
    """Whether a request asks for rewordings: its reply has no other key."""
    return reply_keys(reply_schema) == REPLY_KEYS


def reword(question: str, replacements: Replacements, *, turned: bool = False) -> str:
    """The reply, as JSON, to the task that stands in a question as JSON."""
    task = _read_task(question)
    entries = [
        {
            "number": text["number"],
            "variants": [
                _turn(text["text"], number) if turned else _vary(text["text"], number, replacements)
                for number in range(task["variants"])
            ],
        }
        for text in task["texts"]
    ]
    return json.dumps({"rewordings": entries}, ensure_ascii=False)


def _read_task(question: str) -> dict[str, Any]:
    try:
        task, _ = json.JSONDecoder().raw_decode(question, question.index("{"))
        texts = [{"number": int(t["number"]), "text": str(t["text"])} for t in task["texts"]]
        return {"variants": int(task["variants"]), "texts": texts}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the request holds no task of rewording: {error}") from None


def _vary(text: str, number: int, replacements: Replacements) -> str:
    for phrase, others in replacements.items():
        text = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", others[number % len(others)], text)
    return text


def _turn(text: str, number: int) -> str:
    """The same text with one fact turned, lost or added."""
    turns = (
        lambda: re.sub(r"\d+", lambda found: str(int(found[0]) + 1), text, count=1),
        lambda: re.sub(r"\b(no|not|without)\b", "with", text, count=1),
        lambda: f"{text.rstrip('.')}, and there are 7 fingers on the left.",
        lambda: f"Nothing shows that {text[:1].lower()}{text[1:]}",
    )
    start = seed_of("turn", text, number) % len(turns)
    made = (turns[(start + step) % len(turns)]() for step in range(len(turns)))
    return next(changed for changed in made if changed != text)
