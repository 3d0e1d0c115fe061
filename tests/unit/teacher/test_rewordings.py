"""The rehearsal teacher rewords by stated rules, and says that it is simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import DataError
from core.recipe import DEFAULT_RECIPE
from core.records import TeacherRequest
from teacher.faults import Fault
from teacher.rehearsal import load_rehearsal
from teacher.rewordings import is_rewording, read_replacements, reword

SCHEMA = '{"properties":{"rewordings":{}}}'
TEXTS = ["It amounts to 3 per cent, as if drawn.", "Nothing else."]
TASK = {"variants": 2, "texts": [{"number": n, "text": t} for n, t in enumerate(TEXTS, start=1)]}
QUESTION = f"Known authenticity: fake\n\n{json.dumps(TASK)}"


def request(question: str = QUESTION) -> TeacherRequest:
    return TeacherRequest(
        model="rehearsal",
        instructions="Say it in other words.",
        question=question,
        pictures=(),
        reply_schema=SCHEMA,
        temperature=0.7,
        max_output_tokens=500,
    )


def texts_of(content: str) -> list[list[str]]:
    return [entry["variants"] for entry in json.loads(content)["rewordings"]]


def test_each_variant_takes_its_own_replacements() -> None:
    rules = {"amounts to": ["comes to", "makes"], "as if": ["as though"]}
    content = reword(QUESTION, rules)
    assert texts_of(content) == [
        ["It comes to 3 per cent, as though drawn.", "It makes 3 per cent, as though drawn."],
        ["Nothing else.", "Nothing else."],
    ]


def test_a_completion_without_a_picture_says_that_no_model_was_asked() -> None:
    rehearsal = load_rehearsal(DEFAULT_RECIPE)
    completion = rehearsal.complete(request())
    assert "no language model" in completion["simulated"]
    assert completion["usage"]["prompt_tokens_details"]["image_tokens"] == 0
    (first, _), _ = texts_of(completion["choices"][0]["message"]["content"])
    assert first == "It amounts to 3 percent, as though drawn."
    assert completion == rehearsal.complete(request())


def test_told_to_it_turns_a_fact_in_every_rewording() -> None:
    completion = load_rehearsal(DEFAULT_RECIPE).complete(request(), Fault.TURNED_FACT)
    for original, variants in zip(
        TEXTS, texts_of(completion["choices"][0]["message"]["content"]), strict=True
    ):
        assert original not in variants


def test_a_note_after_the_task_does_not_disturb_it() -> None:
    assert reword(f"{QUESTION}\n\nYour last reply {{was}} bad.", {}) == reword(QUESTION, {})


@pytest.mark.parametrize(
    "question", ["", "no task", "{", '{"texts": 3}', '{"variants": 2, "texts": [{"text": "a"}]}']
)
def test_a_question_without_a_task_is_named(question: str) -> None:
    with pytest.raises(DataError, match="no task of rewording"):
        reword(question, {})


def test_only_a_reply_of_rewordings_is_one() -> None:
    assert is_rewording(SCHEMA)
    assert not is_rewording('{"properties":{"rewordings":{},"verdict":{}}}')
    assert not is_rewording("{}") and not is_rewording("no JSON") and not is_rewording("[]")


def test_a_recipe_without_the_stage_has_no_replacements(tmp_path: Path) -> None:
    assert read_replacements(tmp_path) == {}
    assert "per cent" in read_replacements(DEFAULT_RECIPE)
