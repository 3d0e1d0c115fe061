"""The approved wording of one row of each form and dialogue in each case that it can meet.

`python -m tests.unit.instruct_builder.golden` writes the texts anew; read the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import yaml

from core.records import Authenticity, Confidence
from tests.unit.instruct_builder.specimens import Pair, expand_all, make_pair

Rows = dict[str, dict[str, dict[str, str]]]
FOUR = ("clarity", "layout", "symmetry", "theme")
GOLDEN = Path(__file__).with_name("golden.yaml")


def golden_pairs() -> list[Pair]:
    """Both labels with many, one and no findings; enough of them for choices."""
    found = (
        (["texture", "light_shadow", "edge"], Confidence.HIGH),
        (["content_deficiency"], Confidence.MEDIUM),
        (["shape"], Confidence.LOW),
        ([], Confidence.LOW),
        *(([*four], Confidence.HIGH) for four in combinations(FOUR, 2)),
        *(([*four], Confidence.HIGH) for four in combinations(FOUR, 3)),
        *(([one], Confidence.MEDIUM) for one in FOUR),
    )
    return [
        make_pair(f"{label} {place}", label, categories, confidence=confidence)
        for label in Authenticity
        for place, (categories, confidence) in enumerate(found)
    ]


def pairs_of_one_finding() -> list[Pair]:
    """A whole block of choices with one right option, for each label: among others, none is."""
    return [
        make_pair(f"{label} {one} alone", label, [one], confidence=Confidence.MEDIUM)
        for label in Authenticity
        for one in FOUR
    ]


def golden_rows() -> Rows:
    """What is said by form and by chain; the first row of each form or dialogue in each chain."""
    choice = "aspect_choice"
    return said_by(golden_pairs()) | {choice: said_by(pairs_of_one_finding())[choice]}


def said_by(pairs: Sequence[Pair]) -> Rows:
    """The same of some chains."""
    rows: Rows = {}
    for (_, image), instructions in zip(pairs, expand_all(pairs), strict=True):
        for row in instructions:
            said = [message.content for message in row.messages]
            talk = {f"{n // 2 + 1} {'QA'[n % 2]}": text for n, text in enumerate(said)}
            rows.setdefault(row.form, {}).setdefault(image.group, talk)
    return rows


if __name__ == "__main__":
    text = yaml.safe_dump(golden_rows(), sort_keys=False, allow_unicode=True, width=96)
    GOLDEN.write_text(text, encoding="utf-8")
