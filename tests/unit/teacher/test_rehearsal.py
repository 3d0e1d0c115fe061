from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from skimage import data

from core.errors import ConfigError, DataError, TransientError
from core.recipe import DEFAULT_RECIPE
from core.records import AttemptOutcome, TeacherReply, TeacherRequest
from teacher.client import Teacher
from teacher.failures import FailedCall
from teacher.faults import Fault, Faults
from teacher.gate import Gate
from teacher.ledger import MemoryLedger
from teacher.loopback import serve
from teacher.policy import ask, ask_until_usable
from teacher.prices import FREE
from teacher.rehearsal import Rehearsal, load_rehearsal, main, start_rehearsal
from teacher.request import payload_of, request_hash, schema_text
from tests.unit.teacher.scripted import draw_jpeg, make_picture, make_request

FINDING = {
    "category": {"type": "string"},
    "evidence": {"type": "string"},
    "points_to": {"type": "string", "enum": ["real", "fake"]},
    "region": {"type": ["array", "null"]},
}
SCHEMA = {
    "type": "object",
    "properties": {
        "findings": {"type": "array", "items": {"type": "object", "properties": FINDING}},
        "conclusion": {"type": "string"},
        "verdict": {"type": "string", "enum": ["real", "fake"]},
        "confidence": {"type": "string"},
    },
}


def encode(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def photograph() -> Any:
    return data.astronaut()[20:148, 150:278].astype(float)


def with_lattice(pixels: Any, levels: float = 12.0) -> Any:
    height, width = pixels.shape[:2]
    wave = 1.0 - 2 * (np.add.outer(np.arange(height), np.arange(width)) % 2)
    return pixels + levels * wave[..., None]


GREY_CARD = encode(np.full((128, 128, 3), 128))
PHOTOGRAPH = encode(photograph())
LATTICE = encode(with_lattice(photograph()))


def about(image: bytes, told: str | None = "fake", **changes: Any) -> TeacherRequest:
    line = f"Known authenticity: {told}\n" if told else ""
    question = f"# Human supervision\n{line}Describe the traces."
    values = {
        "pictures": (make_picture(image, media_type="image/png"),),
        "reply_schema": schema_text(SCHEMA),
        "max_output_tokens": 1200,
    }
    return make_request(question=question, **{**values, **changes})


def read(reply: TeacherReply) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(reply.content or "")
    return parsed


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return load_rehearsal(DEFAULT_RECIPE)


@pytest.fixture(scope="module")
def teacher(rehearsal: Rehearsal) -> Iterator[Teacher]:
    with serve(rehearsal) as base_url, Teacher(base_url) as opened:
        yield opened


def test_it_says_what_it_is(teacher: Teacher) -> None:
    teacher.check()
    reply = teacher.send(about(PHOTOGRAPH))
    body = json.loads(reply.raw)
    assert reply.model == "rehearsal"
    assert body["system_fingerprint"].startswith("simulated-")
    assert "no vision-language model" in body["simulated"]


def test_the_same_request_gets_the_same_bytes(teacher: Teacher) -> None:
    first, second = teacher.send(about(PHOTOGRAPH)), teacher.send(about(PHOTOGRAPH))
    assert first.raw == second.raw
    assert json.loads(first.raw)["created"] == 0


def test_both_told_labels_get_the_same_findings(teacher: Teacher) -> None:
    for image in (PHOTOGRAPH, LATTICE, GREY_CARD):
        as_fake = read(teacher.send(about(image, "fake")))
        as_real = read(teacher.send(about(image, "real")))
        assert as_fake["findings"] == as_real["findings"]
        assert (as_fake["verdict"], as_real["verdict"]) == ("fake", "real")
        assert as_fake["conclusion"] != as_real["conclusion"]


def test_a_trace_put_on_is_found_and_taken_off_is_gone(teacher: Teacher) -> None:
    def fake_categories(image: bytes) -> set[str]:
        findings = read(teacher.send(about(image, None)))["findings"]
        return {f["category"] for f in findings if f["points_to"] == "fake"}

    assert "distortion" in fake_categories(LATTICE)
    assert "distortion" not in fake_categories(PHOTOGRAPH)


def test_a_grey_card_shows_nothing_and_is_told_so(teacher: Teacher) -> None:
    for told in ("fake", "real", None):
        answer = read(teacher.send(about(GREY_CARD, told)))
        assert answer["findings"] == []
        assert answer["confidence"] == "low"


def test_untold_it_decides_by_its_findings(teacher: Teacher) -> None:
    assert read(teacher.send(about(LATTICE, None)))["verdict"] == "fake"
    assert read(teacher.send(about(GREY_CARD, None)))["verdict"] == "real"


def test_the_answer_has_the_keys_of_the_schema_in_its_order(teacher: Teacher) -> None:
    answer = read(teacher.send(about(LATTICE)))
    assert list(answer) == ["findings", "conclusion", "verdict", "confidence"]
    assert answer["findings"]
    for finding in answer["findings"]:
        assert list(finding) == list(FINDING)
        for x, y in finding["region"] or []:
            assert 0 <= x <= 1
            assert 0 <= y <= 1


def test_usage_is_counted_from_text_and_patches(teacher: Teacher) -> None:
    usage = teacher.send(about(PHOTOGRAPH)).usage
    assert usage.image_tokens == 16
    assert usage.prompt_tokens > usage.image_tokens
    assert usage.completion_tokens > 0


def test_a_reply_above_the_limit_is_cut_off(teacher: Teacher) -> None:
    reply = teacher.send(replace(about(PHOTOGRAPH), max_output_tokens=10))
    assert reply.finish_reason == "length"
    assert len(reply.content or "") == 40


@pytest.mark.parametrize(
    "image", [b"", b"no picture", PHOTOGRAPH[:200], encode(np.zeros((4, 4, 3)))]
)
def test_an_image_that_cannot_be_used_is_refused(teacher: Teacher, image: bytes) -> None:
    with pytest.raises(DataError, match="image cannot be used"):
        teacher.send(about(image))


def test_it_measures_the_whole_image_and_counts_every_picture(teacher: Teacher) -> None:
    shown = make_picture(GREY_CARD, caption="Demonstration 1", is_exemplar=True)
    whole = make_picture(LATTICE, caption="The whole image")
    crop = make_picture(PHOTOGRAPH, caption="A part of it")
    alone = teacher.send(about(LATTICE))
    among = teacher.send(about(LATTICE, pictures=(shown, whole, crop)))
    assert among.content == alone.content
    assert among.usage.image_tokens == 3 * alone.usage.image_tokens
    assert among.usage.prompt_tokens > alone.usage.prompt_tokens + 2 * alone.usage.image_tokens


def test_a_request_without_an_image_is_refused(teacher: Teacher) -> None:
    with pytest.raises(DataError, match="400"):
        teacher.send(about(PHOTOGRAPH, pictures=()))


@pytest.mark.parametrize("schema", ['{"type":"object"}', '{"properties":{"verdict":{}}}'])
def test_a_schema_that_it_cannot_fill_is_refused(teacher: Teacher, schema: str) -> None:
    with pytest.raises(DataError, match="schema asks for something else"):
        teacher.send(about(PHOTOGRAPH, reply_schema=schema))


def post(base_url: str, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, named)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff"])
def test_nonsense_is_a_400_in_the_form_of_openai(teacher: Teacher, body: bytes) -> None:
    status, answer = post(teacher.base_url, "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]


def test_a_wrong_path_or_size_is_refused(teacher: Teacher) -> None:
    assert post(teacher.base_url, "/v1/responses", b"{}")[0] == 404
    size = {"content_length": "99999999999"}
    assert post(teacher.base_url, "/v1/chat/completions", b"{}", **size)[0] == 413


def test_many_calls_at_once_get_their_own_answers(teacher: Teacher) -> None:
    requests = [about(draw_jpeg(n), "fake") for n in range(24)]
    alone = [teacher.send(request).raw for request in requests]
    with ThreadPoolExecutor(16) as pool:
        together = [reply.raw for reply in pool.map(teacher.send, requests)]
    assert together == alone


def send_with(rehearsal: Rehearsal, timeout_s: float = 10, **faults: Any) -> TeacherReply:
    with (
        serve(rehearsal, faults=Faults(**faults)) as base_url,
        Teacher(base_url, timeout_s=timeout_s) as opened,
    ):
        return opened.send(about(LATTICE))


def test_played_replies_are_spoilt_as_asked(rehearsal: Rehearsal) -> None:
    assert send_with(rehearsal, rate_refusal=1).refusal
    truncated = send_with(rehearsal, rate_truncated=1)
    assert truncated.finish_reason == "length"
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        read(truncated)
    junk = send_with(rehearsal, rate_junk=1)
    assert junk.finish_reason == "stop"
    with pytest.raises(ValueError, match="Expecting"):
        read(junk)
    assert read(send_with(rehearsal, rate_wrong_verdict=1))["verdict"] == "real"


@pytest.mark.parametrize(
    ("rate", "outcome"),
    [
        ("rate_429", AttemptOutcome.RATE_LIMITED),
        ("rate_500", AttemptOutcome.SERVER_ERROR),
        ("rate_hang", AttemptOutcome.TIMED_OUT),
    ],
)
def test_played_failures_arrive_as_such(
    rehearsal: Rehearsal, rate: str, outcome: AttemptOutcome
) -> None:
    with pytest.raises(TransientError) as caught:
        send_with(rehearsal, timeout_s=0.3, **{rate: 1})
    assert isinstance(caught.value, FailedCall)
    assert caught.value.outcome is outcome
    if rate == "rate_429":
        assert caught.value.retry_after == pytest.approx(0.1)


def test_latency_is_played(rehearsal: Rehearsal) -> None:
    assert send_with(rehearsal, latency_s=0.2).latency_s > 0.2


def test_faults_depend_on_request_and_occasion_alone() -> None:
    faults = Faults(rate_429=0.2, rate_500=0.2, rate_junk=0.2, seed=4)
    draws = [faults.draw(f"{n}", seen) for n in range(300) for seen in (0, 1)]
    assert draws == [faults.draw(f"{n}", seen) for n in range(300) for seen in (0, 1)]
    assert set(draws) == {None, Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.JUNK}
    assert 90 <= draws.count(Fault.JUNK) <= 150
    assert draws[::2] != draws[1::2], "a second try has its own luck"


def test_rates_above_one_in_all_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        Faults(rate_429=0.7, rate_500=0.7)


def test_drafting_gets_through_a_bad_day_and_pays_once(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    bad_day = Faults(
        rate_429=0.2, retry_after=0.01, rate_500=0.1, rate_refusal=0.1, rate_junk=0.1, seed=3
    )
    ledger = MemoryLedger()
    requests = [about(draw_jpeg(n), "fake") for n in range(20)]

    def parse(reply: TeacherReply) -> dict[str, Any]:
        try:
            return read(reply)
        except ValueError:
            raise DataError("it was no JSON") from None

    def draft(request: TeacherRequest) -> dict[str, Any]:
        answer, _ = ask_until_usable(
            opened,
            request,
            parse=parse,
            max_reasks=5,
            ledger=ledger,
            image_id="img",
            arm="main",
            price=FREE,
            max_tries=8,
            stop=threading.Event(),
            gate=Gate(),
            sleep=lambda _: None,
        )
        return answer

    with serve(rehearsal, log=log, faults=bad_day) as base_url, Teacher(base_url) as opened:
        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(draft, requests))
        num_asked = len(log.read_text().splitlines())
        assert list(map(draft, requests)) == first
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == num_asked, "a stored reply was asked for again"
    answered = [line["request_hash"] for line in lines if line["status"] == 200]
    assert len(set(answered)) == len(answered)
    assert set(answered) == {reply.request_hash for reply in ledger.replies.values()}
    assert {line["status"] for line in lines} == {200, 429, 500}


def test_the_log_names_the_request_as_the_ledger_does(rehearsal: Rehearsal, tmp_path: Path) -> None:
    log = tmp_path / "new" / "requests.jsonl"
    with serve(rehearsal, log=log) as base_url, Teacher(base_url) as opened:
        opened.send(about(PHOTOGRAPH, "real"))
        post(base_url, "/v1/chat/completions", b"{}")
    first, second = [json.loads(line) for line in log.read_text().splitlines()]
    assert first["request_hash"] == request_hash(about(PHOTOGRAPH, "real"))
    assert (first["status"], first["told"], first["fault"]) == (200, "real", None)
    assert (second["status"], second["request_hash"]) == (400, None)


def test_a_log_that_cannot_be_written_is_a_config_error(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="request log cannot be written"),
        serve(rehearsal, log=tmp_path / "file" / "log"),
    ):
        pytest.fail("it started")


def test_a_port_in_use_is_a_config_error(rehearsal: Rehearsal, teacher: Teacher) -> None:
    port = urlsplit(teacher.base_url).port
    assert port is not None
    with pytest.raises(ConfigError, match="choose another --port"), serve(rehearsal, port=port):
        pytest.fail("it started")


def test_a_recipe_without_conclusions_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "rehearsal.yaml").write_text("rules: []\n")
    with pytest.raises(ConfigError, match="no section conclusions"):
        load_rehearsal(tmp_path)


def is_listening(base_url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_it_runs_in_a_process_of_its_own_and_ends_with_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with start_rehearsal(DEFAULT_RECIPE, log=Path("log"), faults=Faults(seed=1)) as base_url:
        assert is_listening(base_url)
        with Teacher(base_url) as opened:
            assert read(opened.send(about(LATTICE)))["verdict"] == "fake"
    assert not is_listening(base_url)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_broken_recipe_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    recipe = shutil.copytree(DEFAULT_RECIPE, tmp_path / "recipe")
    rules = recipe / "rehearsal.yaml"
    rules.write_text(rules.read_text().replace("high_from", "hihg_from"))
    with (
        pytest.raises(ConfigError, match=r"rehearsal\.yaml.*did you mean high_from") as caught,
        start_rehearsal(recipe),
    ):
        pytest.fail("it started")
    assert "\n" not in str(caught.value)


PARENT = """
import sys, time
from core.recipe import DEFAULT_RECIPE
from teacher.rehearsal import start_rehearsal
with start_rehearsal(DEFAULT_RECIPE) as base_url:
    print(base_url, flush=True)
    time.sleep(60)
"""


def test_a_killed_parent_leaves_no_orphan() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        assert is_listening(base_url)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_listening(base_url):
        assert time.monotonic() < deadline, "the rehearsal teacher outlived its parent"
        time.sleep(0.05)


def test_help_is_honest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert "answers are simulated" in said
    assert "No vision-language model" in said


@pytest.mark.parametrize(
    ("faults", "reason"),
    [('{"rate_492": 0.1}', "did you mean rate_429"), ("{", "not valid JSON"), ("3", "--faults")],
)
def test_unknown_faults_end_with_code_2(
    capsys: pytest.CaptureFixture[str], faults: str, reason: str
) -> None:
    assert main(["--faults", faults]) == 2
    assert reason in capsys.readouterr().err


def test_the_plain_client_call_of_any_user_works(teacher: Teacher) -> None:
    body = json.dumps(payload_of(about(PHOTOGRAPH))).encode()
    status, answer = post(teacher.base_url, "/v1/chat/completions?x=1", body)
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_stored_reply_needs_no_server(teacher: Teacher) -> None:
    ledger = MemoryLedger()
    terms: dict[str, Any] = {
        "ledger": ledger,
        "image_id": "img",
        "arm": "main",
        "price": FREE,
        "gate": Gate(),
        "max_tries": 1,
        "stop": threading.Event(),
    }
    reply = ask(teacher, about(PHOTOGRAPH), **terms)
    with Teacher("http://127.0.0.1:1/v1") as nobody:
        assert ask(nobody, about(PHOTOGRAPH), **terms) == reply
