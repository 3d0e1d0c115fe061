"""What a reply in words decides: read by word, never by part of one, and never guessed."""

from __future__ import annotations

import re
from typing import Final

from core.records import Authenticity

SENTENCES: Final = 2
"""of a reply in which a verdict may stand; FakeVLM's released code looks as far"""
WORD: Final = re.compile(r"(?<![\w-])\w+(?:['’]\w+)?(?![\w-])")
NEGATIONS: Final = ("n't", "n’t")
"""how words end that turn the next ones, as `not` does"""
REACH: Final = 1
"""words that may stand between a negation and what it turns: `not a fake`"""
SENTENCE_END: Final = re.compile(r"(?<=[.!?;\n])\s+")


def read_verdict(reply: str) -> Authenticity | None:
    """`real` or `fake` as the first two sentences say it; None where they say neither, or both.

    `unrealistic` and `real-looking` are other words. A negated word stands for its opposite.
    """
    for sentence in SENTENCE_END.split(reply.strip())[:SENTENCES]:
        said = _said_in(sentence)
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _said_in(sentence: str) -> set[Authenticity]:
    words = [word.lower() for word in WORD.findall(sentence)]
    said = set()
    for place, word in enumerate(words):
        if word in tuple(Authenticity):
            verdict = Authenticity(word)
            before = words[max(0, place - REACH - 1) : place]
            is_negated = any(each == "not" or each.endswith(NEGATIONS) for each in before)
            said.add(verdict.opposite if is_negated else verdict)
    return said


def read_yes_or_no(reply: str) -> bool | None:
    """True for yes; None where the first two sentences hold neither word, or both."""
    for sentence in SENTENCE_END.split(reply.strip())[:SENTENCES]:
        said = {word.lower() for word in WORD.findall(sentence)} & {"yes", "no"}
        if said:
            return said == {"yes"} if len(said) == 1 else None
    return None
