from __future__ import annotations

import email.utils
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, DataError, PermanentError, TransientError
from core.records import AttemptOutcome, Usage
from teacher.client import Teacher, is_loopback, read_reply, retry_after
from teacher.failures import FailedCall
from teacher.request import payload_of, request_hash
from tests.unit.teacher.scripted import (
    Answer,
    ScriptedServer,
    completion,
    failure,
    make_request,
)

STRAY = {
    "OPENAI_API_KEY": "sk-stray",
    "OPENAI_ADMIN_KEY": "sk-stray-admin",
    "OPENAI_BASE_URL": "http://stray.invalid/v1",
    "OPENAI_ORG_ID": "org-stray",
    "OPENAI_PROJECT_ID": "proj-stray",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer stray\nX-Stray: stray\nHost: stray.invalid",
    "HTTP_PROXY": "http://stray.invalid:3128",
    "ALL_PROXY": "http://stray.invalid:3128",
}


def refusal_of(server: ScriptedServer, answer: Answer) -> FailedCall:
    server.answers = [answer]
    with Teacher(server.base_url) as teacher, pytest.raises(FailedCall) as caught:
        teacher.send(make_request())
    return caught.value


def test_send_delivers_the_payload_and_reads_the_reply(server: ScriptedServer) -> None:
    server.answers = [completion('{"verdict": "fake"}')]
    with Teacher(server.base_url, "sk-ours") as teacher:
        reply = teacher.send(make_request())
    assert server.heard[0].path == "/v1/chat/completions"
    assert server.heard[0].payload == payload_of(make_request())
    assert reply.content == '{"verdict": "fake"}'
    assert (reply.finish_reason, reply.refusal, reply.model) == ("stop", None, "sturgeon-2")
    assert reply.request_hash == request_hash(make_request())
    assert reply.latency_s > 0
    assert reply.usage == Usage(
        prompt_tokens=1000,
        cached_tokens=400,
        image_tokens=85,
        completion_tokens=200,
        reasoning_tokens=50,
    )


def test_a_refusal_is_a_reply(server: ScriptedServer) -> None:
    server.answers = [completion(None, refusal="I cannot.")]
    with Teacher(server.base_url) as teacher:
        reply = teacher.send(make_request())
    assert (reply.content, reply.refusal) == (None, "I cannot.")


@pytest.mark.parametrize(
    "body", [b"", b"<html>404</html>", b"[]", b'{"choices": []}', b"\xff\0", b"[" * 100_000]
)
def test_a_body_that_is_no_completion_is_kept(server: ScriptedServer, body: bytes) -> None:
    server.answers = [Answer(body=body)]
    with Teacher(server.base_url) as teacher:
        reply = teacher.send(make_request())
    assert (reply.content, reply.finish_reason) == (None, "unreadable")
    assert reply.raw == body.decode("utf-8", "replace").replace("\0", "\ufffd")


@given(st.binary() | st.text().map(str.encode))
def test_any_body_can_be_read_and_stored(body: bytes) -> None:
    reply = read_reply(body, request_hash="h", request_id=None, latency_s=0)
    assert "\0" not in reply.raw
    assert reply.raw.encode("utf-8").decode("utf-8") == reply.raw


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.fixed_dictionaries(
        {
            "choices": json_values | st.lists(st.fixed_dictionaries({"message": json_values})),
            "usage": json_values | st.fixed_dictionaries({"prompt_tokens": json_values}),
            "model": json_values,
        }
    )
)
def test_any_json_can_be_read(value: object) -> None:
    reply = read_reply(json.dumps(value).encode(), request_hash="h", request_id=None, latency_s=0)
    assert reply.usage.prompt_tokens >= 0


def test_what_no_database_takes_is_replaced() -> None:
    body = b'{"choices": [{"message": {"content": "a\\u0000b\\ud800c"}}]}'
    reply = read_reply(body, request_hash="h", request_id=None, latency_s=0)
    assert reply.content == "a\ufffdb?c"


def test_content_in_parts_is_joined() -> None:
    body = completion(None).body.replace(
        b'"content": null', b'"content": [{"type": "text", "text": "a"}, {"text": "b"}]'
    )
    assert read_reply(body, request_hash="h", request_id=None, latency_s=0).content == "ab"


@pytest.mark.parametrize("key", [None, "sk-ours"])
def test_nothing_from_the_environment_is_sent(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value)
    server.answers = [completion()]
    with Teacher(server.base_url, key) as teacher:
        teacher.send(make_request())
    heard = server.heard[0]
    assert "stray" not in json.dumps(heard.headers).lower()
    assert heard.headers["host"] == f"127.0.0.1:{server.server_port}"
    assert heard.headers.get("authorization") == (None if key is None else "Bearer sk-ours")
    assert not any(name.startswith(("openai-", "x-stainless-os")) for name in heard.headers)


@pytest.mark.parametrize(
    ("answer", "kind", "outcome"),
    [
        (failure(429, code="rate_limit_exceeded"), TransientError, AttemptOutcome.RATE_LIMITED),
        (failure(429, code="insufficient_quota"), PermanentError, AttemptOutcome.REJECTED),
        (failure(408), TransientError, AttemptOutcome.SERVER_ERROR),
        (failure(409), TransientError, AttemptOutcome.SERVER_ERROR),
        (failure(500), TransientError, AttemptOutcome.SERVER_ERROR),
        (failure(503), TransientError, AttemptOutcome.SERVER_ERROR),
        (failure(401), PermanentError, AttemptOutcome.REJECTED),
        (failure(402), PermanentError, AttemptOutcome.REJECTED),
        (failure(403), PermanentError, AttemptOutcome.REJECTED),
        (failure(404, code="model_not_found"), PermanentError, AttemptOutcome.REJECTED),
        (failure(400, code="unsupported_value"), PermanentError, AttemptOutcome.REJECTED),
        (failure(400, code="invalid_image"), DataError, AttemptOutcome.REJECTED),
        (failure(413), DataError, AttemptOutcome.REJECTED),
        (failure(422), DataError, AttemptOutcome.REJECTED),
        (failure(307, location="http://stray.invalid/v1"), PermanentError, AttemptOutcome.REJECTED),
        (Answer(status=500, body=b"<html>"), TransientError, AttemptOutcome.SERVER_ERROR),
    ],
    ids=lambda value: value.status if isinstance(value, Answer) else "",
)
def test_each_status_has_its_class_and_outcome(
    server: ScriptedServer, answer: Answer, kind: type[Exception], outcome: AttemptOutcome
) -> None:
    error = refusal_of(server, answer)
    assert isinstance(error, kind)
    assert error.outcome is outcome
    assert f"127.0.0.1:{server.server_port}" in str(error)
    assert "\n" not in str(error)
    assert len(server.heard) == 1, "the client must not retry behind our back"


def test_messages_name_the_remedy_and_never_the_key(server: ScriptedServer) -> None:
    server.answers = [failure(401, "Incorrect API key provided")]
    with Teacher(server.base_url, "sk-secret") as teacher, pytest.raises(PermanentError) as caught:
        teacher.send(make_request())
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "sk-secret" not in str(caught.value) + repr(teacher) + str(vars(teacher))


def test_an_unknown_model_is_named(server: ScriptedServer) -> None:
    error = refusal_of(server, failure(404, code="model_not_found"))
    assert "sturgeon-2" in str(error)
    assert "OPENAI_BASE_URL" in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    seconds = retry_after({"retry-after": date})
    assert seconds is not None
    assert 25 < seconds <= 31


def test_a_rate_limit_carries_the_pause_asked_for(server: ScriptedServer) -> None:
    error = refusal_of(server, failure(429, retry_after="300"))
    assert isinstance(error, TransientError)
    assert error.retry_after == 300


def test_silence_is_a_timeout(server: ScriptedServer) -> None:
    server.answers = [Answer(delay_s=1.0)]
    with Teacher(server.base_url, timeout_s=0.1) as teacher, pytest.raises(FailedCall) as caught:
        teacher.send(make_request())
    assert caught.value.outcome is AttemptOutcome.TIMED_OUT
    assert isinstance(caught.value, TransientError)


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def test_nobody_there_is_one_line_that_says_what_to_check() -> None:
    address = unused_address()
    with Teacher(address) as teacher:
        with pytest.raises(TransientError, match=f"{address}.*check OPENAI_BASE_URL") as caught:
            teacher.send(make_request())
        assert isinstance(caught.value, FailedCall)
        assert caught.value.outcome is AttemptOutcome.UNREACHABLE
        with pytest.raises(ConfigError, match="check OPENAI_BASE_URL"):
            teacher.check()


@pytest.mark.parametrize(
    "base_url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://a b/v1", "http://h:x/"]
)
def test_an_address_of_another_form_is_a_config_error(base_url: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        Teacher(base_url)


@pytest.mark.parametrize("key", ["", "sk with space", "sk-ü", "sk\n"])
def test_a_key_that_cannot_be_sent_is_a_config_error_that_hides_it(key: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        Teacher("http://127.0.0.1:1/v1", key)
    assert "sk" not in str(caught.value)


def test_check_accepts_a_list_of_models_or_its_absence(server: ScriptedServer) -> None:
    server.answers = [Answer(body=b'{"object": "list", "data": []}'), failure(404)]
    with Teacher(server.base_url) as teacher:
        teacher.check()
        teacher.check()
    assert [heard.path for heard in server.heard] == ["/v1/models", "/v1/models"]


def test_check_refuses_a_server_of_another_kind(server: ScriptedServer) -> None:
    server.answers = [Answer(body=b"<html>Welcome</html>"), failure(401)]
    with Teacher(server.base_url) as teacher:
        with pytest.raises(ConfigError, match="not as an OpenAI-compatible server"):
            teacher.check()
        with pytest.raises(PermanentError, match="OPENAI_API_KEY"):
            teacher.check()


def test_a_password_in_the_address_is_not_shown(server: ScriptedServer) -> None:
    server.answers = [failure(500)]
    address = server.base_url.replace("127.0.0.1", "user:hunter2@127.0.0.1")
    with Teacher(address) as teacher, pytest.raises(TransientError) as caught:
        teacher.send(make_request())
    assert "hunter2" not in str(caught.value)


def test_many_threads_share_one_teacher(server: ScriptedServer) -> None:
    server.answers = [completion()]
    requests = [make_request(question=f"Image {number}") for number in range(64)]
    with Teacher(server.base_url) as teacher, ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(teacher.send, requests))
    assert [r.request_hash for r in replies] == [request_hash(r) for r in requests]
    asked = {h.payload["messages"][1]["content"][0]["text"] for h in server.heard}
    assert asked == {request.question for request in requests}
    assert len({heard.port for heard in server.heard}) <= 16


def test_a_connection_is_kept_also_after_a_refusal(server: ScriptedServer) -> None:
    server.answers = [failure(500), completion()]
    with Teacher(server.base_url) as teacher:
        with pytest.raises(TransientError):
            teacher.send(make_request())
        teacher.send(make_request())
        teacher.send(make_request())
    assert len({heard.port for heard in server.heard}) == 1


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://192.168.1.5/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://localhost.example.org/v1", False),
        ("nonsense", False),
    ],
)
def test_loopback_is_this_machine_alone(base_url: str, expected: bool) -> None:
    assert is_loopback(base_url) is expected
