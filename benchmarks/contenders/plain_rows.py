"""What the peers of the instruction builder work on: chains as dictionaries, rows as dictionaries.

The rows say about what ours say and are as long, have the same columns, and stand chain by chain.
Nothing is planned, balanced or checked, and ids are counted.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Chain = dict[str, Any]

SHARED = ("chain_id", "image_id", "image_path", "image_sha256", "label", "generator", "source",
          "split", "review_level")  # fmt: skip
OPENINGS = (
    "Is this image real or fake?", "What speaks for your verdict?", "Describe what you see.",
    "Look at {aspect}. What does it tell?", "Does {aspect} show traces of generation?",
    "Which signs of generation would {aspect} show?", "What would you check next?",
    "Explain your verdict on {aspect} to a layperson.",
)  # fmt: skip
ANSWERS = (
    "{Verdict}.", "{evidence} That is why the image is {verdict}.", "{evidence} {conclusion}",
    "With regard to {aspect}: {evidence}", "{conclusion} Seen in {aspect}: {evidence} Nothing else "
    "was found there, and it agrees with the rest.",
)  # fmt: skip


def read_chains(folder: Path) -> list[Chain]:
    """All chains of `chains.jsonl`."""
    with (folder / "chains.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def rows_of(chain: Chain, number: int) -> Iterator[dict[str, Any]]:
    """So many rows of one chain."""
    shared = {name: chain[name] for name in SHARED}
    findings = chain["findings"]
    for place in range(number):
        aspect, evidence = findings[place % len(findings)]
        words = {
            "aspect": aspect,
            "evidence": " ".join(text for _, text in findings) if place % 4 == 0 else evidence,
            "verdict": chain["label"],
            "Verdict": chain["label"].capitalize(),
            "conclusion": chain["conclusion"],
        }
        question = OPENINGS[place % len(OPENINGS)].format(**words)
        answer = ANSWERS[place % len(ANSWERS)].format(**words)
        yield {
            "instruction_id": f"ins-{chain['image_id'][4:]}-{place:03}",
            "family": "plain",
            "form": f"form_{place % len(OPENINGS)}",
            "template_id": f"form/q{place % len(OPENINGS):02}/a{place % len(ANSWERS):02}",
            "aspect": aspect,
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ],
            "target": chain["label"] if place % len(ANSWERS) == 0 else None,
            **shared,
        }
