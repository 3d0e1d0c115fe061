from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, TransientError
from core.records import AttemptOutcome, BatchState
from teacher import batch as batch_module
from teacher.batch import BatchTeacher, input_line, read_result, split_lines
from teacher.failures import (
    FailedCall,
    NotRun,
    RateLimited,
    Refused,
    ServerFailed,
    Unacceptable,
    Unreachable,
)
from teacher.request import body_of, payload_of
from tests.unit.teacher.scripted import Answer, ScriptedServer, completion, failure, make_request


@contextmanager
def scripted(*answers: Answer) -> Iterator[tuple[ScriptedServer, BatchTeacher]]:
    server = ScriptedServer()
    server.answers = list(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        with BatchTeacher(server.base_url, api_key="key-1", timeout_s=20) as teacher:
            yield server, teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def described(**changes: Any) -> dict[str, Any]:
    """A batch as `/batches` describes it."""
    return {
        "id": "batch_1",
        "object": "batch",
        "status": "in_progress",
        "input_file_id": "file-1",
        "metadata": {"fakescope_batch": "batch-ours"},
        "request_counts": {"total": 3, "completed": 1, "failed": 1},
        **changes,
    }


def as_answer(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


def test_a_line_holds_the_very_request_that_would_be_sent_online() -> None:
    request = make_request(question="Two\nlines – and a \u2028 separator")
    line = input_line("attempt-1", body_of(request))
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "custom_id": "attempt-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": payload_of(request),
    }


@given(st.lists(st.binary(max_size=12)), st.integers(1, 7))
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], size: int) -> None:
    whole = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in whole)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert list(split_lines(chunks)) == whole


def test_a_last_line_needs_no_line_feed() -> None:
    assert list(split_lines([b"one\ntw", b"o"])) == [b"one", b"two"]


def test_of_an_endless_line_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "LONGEST_LINE", 8)
    assert list(split_lines([b"12345", b"67890", b"12345\nnext\n"])) == [b"12345678", b"next"]


def result_line(**values: Any) -> bytes:
    entry = {"id": "r", "custom_id": "attempt-1", "response": None, "error": None}
    return json.dumps({**entry, **values}).encode()


def test_an_answered_line_is_the_reply_that_a_single_call_would_bring() -> None:
    body = json.loads(completion('{"a": 1}').body)
    response = {"status_code": 200, "request_id": "req_7", "body": body}
    result = read_result(result_line(response=response))
    assert result.attempt_id == "attempt-1"
    assert result.failure is None
    assert result.reply is not None
    assert result.reply.content == '{"a": 1}'
    assert result.reply.usage.prompt_tokens == 1000
    assert result.reply.request_id == "req_7"
    assert json.loads(result.reply.raw) == body


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "rate_limit_exceeded", RateLimited),
        (500, "server_error", ServerFailed),
        (503, None, ServerFailed),
        (408, None, ServerFailed),
        (400, "image_parse_error", Unacceptable),
        (422, None, Unacceptable),
        (401, "invalid_api_key", Refused),
        (404, "model_not_found", Refused),
        (429, "insufficient_quota", Refused),
        (400, "unsupported_parameter", Refused),
    ],
)
def test_a_failed_line_is_the_failure_that_a_single_call_would_be(
    status: int, code: str | None, kind: type[FailedCall]
) -> None:
    body = {"error": {"message": "because", "type": "any", "code": code}}
    result = read_result(result_line(response={"status_code": status, "body": body}))
    assert type(result.failure) is kind
    assert "because" in str(result.failure)
    with scripted(failure(status, "because", code)) as (_, teacher), pytest.raises(kind):
        teacher.send(make_request())


@pytest.mark.parametrize("code", ["batch_expired", "batch_cancelled"])
def test_a_line_that_was_not_run_is_told_apart(code: str) -> None:
    result = read_result(result_line(error={"code": code, "message": "too late"}))
    assert isinstance(result.failure, NotRun)
    assert result.failure.outcome is AttemptOutcome.NOT_RUN


def test_an_error_without_a_status_may_pass_unless_every_request_would_meet_it() -> None:
    passing = read_result(result_line(error={"code": "whatever", "message": "?"}))
    general = read_result(result_line(error={"code": "insufficient_quota", "message": "?"}))
    assert isinstance(passing.failure, ServerFailed)
    assert isinstance(general.failure, Refused)


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[1]", b"null", b'{"custom_id": 3}', b"{}", b"[" * 100_000, b"\xff\xfe"],
)
def test_junk_is_a_data_error(line: bytes) -> None:
    with pytest.raises(DataError):
        read_result(line)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    ["custom_id", "response", "error", "body", "status_code", "code", "choices"]
                ),
                v,
            )
        ),
    )
)
def test_no_line_of_json_does_more_than_raise_a_data_error(value: Any) -> None:
    line = json.dumps({"custom_id": "a", "response": value, "error": value}).encode()
    result = read_result(line)
    assert (result.reply is None) != (result.failure is None)


def test_an_upload_names_its_purpose_and_carries_no_header_of_the_library() -> None:
    with scripted(as_answer({"id": "file-9"})) as (server, teacher):
        assert teacher.upload(io.BytesIO(b'{"custom_id": "a"}\n'), "batch-1.jsonl") == "file-9"
    (heard,) = server.heard
    assert heard.path == "/v1/files"
    assert heard.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert heard.headers["authorization"] == "Bearer key-1"
    assert not [name for name in heard.headers if name.startswith("x-stainless")]
    assert b'name="purpose"\r\n\r\nbatch\r\n' in heard.body
    assert b'filename="batch-1.jsonl"' in heard.body
    assert b'{"custom_id": "a"}\n' in heard.body


def test_a_batch_is_created_with_our_id_in_its_metadata() -> None:
    with scripted(as_answer(described(status="validating"))) as (server, teacher):
        remote = teacher.create_batch("file-1", batch_id="batch-ours")
    assert server.heard[0].payload == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"fakescope_batch": "batch-ours"},
    }
    assert (remote.remote_id, remote.state) == ("batch_1", BatchState.VALIDATING)
    assert remote.batch_id == "batch-ours"


def test_a_batch_is_read_with_its_files_counts_and_errors() -> None:
    errors = {"data": [{"code": "bad", "message": "no\nJSON", "line": 2}, "junk", {"code": "x"}]}
    answer = described(status="failed", output_file_id="file-2", errors=errors)
    with scripted(as_answer(answer)) as (_, teacher):
        remote = teacher.batch("batch_1")
    assert remote.state is BatchState.FAILED
    assert remote.state.is_ended
    assert (remote.output_file_id, remote.error_file_id) == ("file-2", None)
    assert remote.num_done == 2
    assert remote.errors == ((2, "bad: no JSON"), (None, "x: None"))


def test_a_name_from_the_teacher_stays_one_segment_of_a_path() -> None:
    with scripted(as_answer(described())) as (server, teacher):
        teacher.batch("../files?x=1")
    assert server.heard[0].path == "/v1/batches/..%2Ffiles%3Fx%3D1"


def test_a_batch_is_found_by_our_id_on_any_page() -> None:
    pages = [
        {"data": [described(id="b3", metadata={}, status="new"), described(id="b2", metadata=None)],
         "has_more": True},
        {"data": [described(id="b1")], "has_more": False},
    ]  # fmt: skip
    with scripted(*map(as_answer, pages)) as (server, teacher):
        found = teacher.find_batch("batch-ours")
    assert found is not None
    assert found.remote_id == "b1"
    assert "after=b2" in server.heard[1].path


def test_a_batch_that_the_teacher_does_not_list_is_not_found() -> None:
    with scripted(as_answer({"data": [], "has_more": True})) as (_, teacher):
        assert teacher.find_batch("batch-ours") is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        as_answer({"status": "completed"}),
        as_answer(described(status="on holiday")),
        as_answer(described(status=None)),
    ],
)
def test_an_answer_that_is_no_batch_may_pass(answer: Answer) -> None:
    with scripted(answer) as (_, teacher), pytest.raises(TransientError):
        teacher.batch("batch_1")


def test_failures_are_those_of_single_calls() -> None:
    with scripted(failure(401), failure(400), failure(429), failure(500)) as (_, teacher):
        for kind in (Refused, Unacceptable, RateLimited, ServerFailed):
            with pytest.raises(kind):
                teacher.create_batch("file-1", batch_id="batch-ours")


def test_a_download_that_breaks_off_may_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_half() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\none\ntwo")

        thread = threading.Thread(target=answer_half)
        thread.start()
        port = listener.getsockname()[1]
        with BatchTeacher(f"http://127.0.0.1:{port}/v1") as teacher:
            lines = teacher.lines("file-1")
            assert next(lines) == b"one"
            with pytest.raises(Unreachable):
                next(lines)
        thread.join()
