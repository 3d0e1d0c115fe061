from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.recipe import REHEARSAL
from core.records import Usage
from teacher.judging import judge as mark_by_words
from tests.unit.training.test_answers import NAMES, answers, bench, call, write_json
from training.answer_figures import Marks
from training.endpoint import Endpoint, connect
from training.judge import _task

__all__ = ["bench"]


def words(**texts: str) -> str:
    return json.dumps({"question": "How is its texture?", **texts})


@pytest.mark.parametrize(
    ("reference", "answer", "marks"),
    [
        ("waxy skin, blurred edges", "waxy skin, blurred edges", (2, 2, 2)),
        ("waxy skin, blurred edges", "bright colours everywhere", (0, 0, 0)),
        ("waxy skin, blurred edges", "its texture: blurred", (1, 2, 2)),
        ("waxy skin, blurred edges", "", (0, 0, 0)),
    ],
)
def test_the_rehearsal_teacher_marks_by_shared_words(
    reference: str, answer: str, marks: tuple[int, ...]
) -> None:
    found = json.loads(mark_by_words(words(reference=reference, answer=answer)))
    assert tuple(found.values()) == marks


def test_the_judge_sees_both_orders_and_never_who_wrote_it() -> None:
    (answered,) = answers("Waxy.", 1, axis="fine-grained", key="A1", reference="Waxy skin.")
    tasks = [list(_task(answered, number)) for number in range(4)]
    assert tasks[0] == tasks[2]
    assert tasks[1] == tasks[3]
    assert sorted(tasks[0][2:]) == sorted(tasks[1][2:]) == ["answer", "reference"]
    assert tasks[0] != tasks[1]
    assert tasks[0][:2] == ["round", "question"]


def test_marks_average_as_published() -> None:
    assert Marks(completeness=1.872, preciseness=1.423, relevance=1.891).average == pytest.approx(
        1.729, abs=0.0005
    )


def test_a_judge_elsewhere_needs_a_ceiling_and_its_address_shows_no_key(tmp_path: Path) -> None:
    endpoint = Endpoint(address="https://me:secret@example.com/v1?key=1", model="gpt-5.4")
    assert endpoint.name == "gpt-5.4 (https://example.com/v1)"
    with (
        pytest.raises(ConfigError, match="ceiling in US dollars") as error,
        connect(endpoint, tmp_path),
    ):
        pass
    assert "secret" not in str(error.value)


def test_answers_are_judged_once_and_an_endpoint_is_a_row_like_any_other(
    bench: Path, tmp_path: Path
) -> None:
    """The simulated teacher of this machine, a real server, is examined and then judges itself."""
    gold = write_json(
        tmp_path / "gold.json",
        [{"image_id": "sd-1.png", "A1": "Fine stripes.", "inference_mode": "A fake image."}],
    )
    out = tmp_path / "out"
    arguments: list[Any] = ["--endpoint", REHEARSAL, "--model", REHEARSAL, "--data", bench]
    arguments += ["--out", out, "--ask", "--references", gold, "--judge", REHEARSAL]
    code, text = call(*arguments, "--rounds", 2)
    assert code == 0, text
    report = json.loads((out / "report.json").read_text())
    assert report["detection"]["fakes"] == report["detection"]["photographs"] == 1
    assert report["answers"]["answered"] == report["answers"]["questions"] == 4
    judging = report["judging"]
    assert (judging["simulated"], judging["marked"], judging["failed"]) == (True, 2, 0)
    assert "of 2 (simulated: by counted words)" in text
    assert all(axis["marks"] for axis in report["answers"]["axes"])
    (ledger,) = out.glob("ledger-*.jsonl")
    calls = ledger.read_bytes()
    assert call(*arguments, "--rounds", 2)[0] == 0
    assert ledger.read_bytes() == calls
    assert Usage(**json.loads(calls.splitlines()[-1])["replied"]["reply"]["usage"]).prompt_tokens
    assert NAMES
