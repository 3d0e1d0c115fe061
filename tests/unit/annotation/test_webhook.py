"""The receiver of webhooks: quick, deaf to strangers, unmoved by odd calls."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from annotation.sync import repeat
from annotation.webhook import HEADER, MOST_BYTES, Receiver, receiving
from core.errors import ConfigError, TransientError


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving("127.0.0.1", 0) as started:
        yield started


def call(receiver: Receiver, secret: str | None, body: bytes = b"{}") -> int:
    headers = {} if secret is None else {HEADER.encode(): secret.encode()}
    return httpx2.post(receiver.url, headers=headers, content=body, timeout=10).status_code


def test_a_call_with_the_secret_is_a_hint_however_often_it_comes(receiver: Receiver) -> None:
    for body in (b"{}", b"{}", b"\xff not json", b""):
        assert call(receiver, receiver.secret, body) == 204
    assert receiver.hint.is_set()


@pytest.mark.parametrize(
    "secret", [None, "", "wrong", "e\u0301"], ids=["none", "empty", "wrong", "odd"]
)
def test_a_call_without_the_secret_is_no_hint(receiver: Receiver, secret: str | None) -> None:
    assert call(receiver, secret) == 403
    assert call(receiver, receiver.secret[:-1]) == 403
    assert not receiver.hint.is_set()


def test_a_body_is_bounded(receiver: Receiver) -> None:
    assert call(receiver, receiver.secret, b"x" * (MOST_BYTES + 1)) == 413
    for length in ("9" * 40, "-1", "many"):
        said = send(receiver, f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert said.split()[1] in (b"411", b"413")
    assert not receiver.hint.is_set()


def test_who_sends_nothing_keeps_nobody_waiting(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(receiver.url).port or 0)) as silent:
        silent.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhal")
        assert call(receiver, receiver.secret) == 204


def test_odd_requests_are_refused(receiver: Receiver) -> None:
    for request in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"POST\r\n\r\n"):
        said = send(receiver, request)
        assert b"FakeScope" in said or b"400" in said or b"501" in said
        assert receiver.secret.encode() not in said
    assert call(receiver, receiver.secret) == 204


def send(receiver: Receiver, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", urlsplit(receiver.url).port or 0)) as raw:
        raw.settimeout(10)
        raw.sendall(request)
        raw.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: raw.recv(4096), b""))


def test_a_taken_port_is_refused_in_one_line(receiver: Receiver) -> None:
    with pytest.raises(ConfigError, match="see --port"):
        Receiver("127.0.0.1", urlsplit(receiver.url).port or 0)


def test_every_receiver_has_a_secret_of_its_own(receiver: Receiver) -> None:
    with receiving("127.0.0.1", 0) as other:
        assert other.secret != receiver.secret


def test_a_failure_that_passes_is_said_once_and_so_is_its_end() -> None:
    results = iter([None, TransientError("the server is away"), TransientError("still"), None])
    said: list[str] = []
    wake = threading.Event()

    def step() -> None:
        wake.set()
        result = next(results, KeyboardInterrupt())
        if result is not None:
            raise result

    with pytest.raises(KeyboardInterrupt):
        repeat(step, seconds=60, wake=wake, say=said.append)
    assert said == ["the server is away; trying again every 15 s", "it works again"]


def test_a_hint_that_comes_during_a_step_is_followed_by_another() -> None:
    wake, steps = threading.Event(), []

    def step() -> None:
        steps.append(len(steps))
        if len(steps) == 3:
            raise KeyboardInterrupt
        wake.set()

    with pytest.raises(KeyboardInterrupt):
        repeat(step, seconds=60, wake=wake, say=lambda _: None)
    assert len(steps) == 3
