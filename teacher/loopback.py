"""An OpenAI-compatible HTTP server on this machine, for a teacher that is a function of ours."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from core.errors import ConfigError, DataError
from core.ids import canonical_json, sha256_bytes
from core.records import TeacherRequest
from teacher.conclusions import told_label
from teacher.faults import NO_FAULTS, Fault, Faults
from teacher.request import request_hash, request_of

HOST = "127.0.0.1"
MOST_BYTES = 64 * 2**20
"""of a request"""


class Answering(Protocol):
    """What answers: a model name and a function from requests to chat completions."""

    @property
    def model(self) -> str: ...

    def complete(self, request: TeacherRequest, fault: Fault | None) -> Mapping[str, Any]:
        """The chat completion, spoilt where a fault asks for it; DataError for a bad request."""
        ...


class Response(NamedTuple):
    """Status, JSON body and further headers."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}


@dataclass(kw_only=True)
class RequestLog:
    """One JSON line per chat request, flushed before the reply leaves."""

    path: Path | None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, **entry: Any) -> None:
        if self.path is None:
            return
        line = canonical_json({"time": datetime.now(UTC).isoformat(), **entry}) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, teacher: Answering, *, faults: Faults, log: RequestLog) -> None:
        super().__init__((HOST, port), _Handler)
        self.teacher = teacher
        self.faults = faults
        self.log = log
        self.stopping = threading.Event()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def times_seen(self, name: str) -> int:
        """How often this request came before."""
        with self._lock:
            self._seen[name] += 1
            return self._seen[name] - 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client went away: its business
            super().handle_error(request, client_address)

    def answer_chat(self, body: bytes) -> Response | None:
        """The response to a chat request; None to give none."""
        try:
            request = request_of(_parse(body))
        except DataError as error:
            self.log.write(request_hash=None, status=400)
            return _refuse(400, str(error))
        name = request_hash(request)
        fault = self.faults.draw(name, self.times_seen(name))
        self.stopping.wait(self.faults.latency_s)
        response = self._respond(request, fault)
        self.log.write(
            request_hash=name,
            image_sha256=sha256_bytes(request.image or b""),
            told=told_label(request.question),
            status=response.status if response else None,
            fault=fault,
        )
        return response

    def _respond(self, request: TeacherRequest, fault: Fault | None) -> Response | None:
        if fault is Fault.HANG:
            return None
        if fault is Fault.RATE_LIMITED:
            pause = {"retry-after-ms": f"{1000 * self.faults.retry_after:g}"}
            return _refuse(429, "simulated rate limit", code="rate_limit_exceeded", headers=pause)
        if fault is Fault.SERVER_ERROR:
            return _refuse(500, "simulated server error", code="server_error")
        try:
            return Response(200, self.teacher.complete(request, fault))
        except DataError as error:
            return _refuse(400, str(error))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            self._send(Response(200, {"status": "ok", "model": self.server.teacher.model}))
        elif path == "/v1/models":
            model = {"id": self.server.teacher.model, "object": "model", "created": 0}
            self._send(Response(200, {"object": "list", "data": [model]}))
        else:
            self._send(_refuse(404, f"there is no {path}"))

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
            self._send(_refuse(413, f"a request needs a content-length of at most {MOST_BYTES}"))
            return
        body = self.rfile.read(int(length))
        if self.path.partition("?")[0] != "/v1/chat/completions":
            self._send(_refuse(404, f"there is no {self.path}"))
            return
        try:
            response = self.server.answer_chat(body)
        except OSError as error:
            response = _refuse(500, f"cannot write the request log: {error}")
        if response is None:
            self.server.stopping.wait()
            self.close_connection = True
        else:
            self._send(response)

    def _send(self, response: Response) -> None:
        body = json.dumps(response.body).encode("ascii")
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The request log is kept elsewhere."""


@contextmanager
def serve(
    teacher: Answering, *, port: int = 0, log: Path | None = None, faults: Faults = NO_FAULTS
) -> Iterator[str]:
    """Answer on loopback, in threads of this process, while the context lasts; yields the URL."""
    _check_log(log)
    try:
        server = _Server(port, teacher, faults=faults, log=RequestLog(path=log))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {HOST}:{port}: {error}; choose another --port"
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/v1"
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _check_log(log: Path | None) -> None:
    if log is None:
        return
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("a").close()
    except OSError as error:
        raise ConfigError(f"{log}: the request log cannot be written: {error.strerror}") from None


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the request is no JSON: {error}") from None
    if not isinstance(payload, dict):
        raise DataError("the request is no JSON object")
    return payload


def _refuse(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Response(status, {"error": error}, headers or {})
