"""An OpenAI-compatible HTTP server on this machine, for a teacher that is a function of ours."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from core.errors import ConfigError, DataError
from core.ids import canonical_json
from core.records import TeacherRequest
from teacher.conclusions import told_label
from teacher.faults import NO_FAULTS, Fault, Faults
from teacher.loopback_batches import BatchLimits, BatchRoom
from teacher.loopback_responses import Download, Response, refuse
from teacher.request import request_hash, request_of, worst_case_tokens

HOST = "127.0.0.1"
MOST_BYTES = 64 * 2**20
"""of a request that is no upload"""
READ_BYTES = 2**16
LINGER_SECONDS = 2
"""for a client that is still sending what was refused"""
ENVELOPE = 2**16
"""bytes that an upload may be longer than its file"""
BATCHES_PER_PAGE = 20
ANY_BATCH = BatchLimits()
"""as large as OpenAI takes them"""


class Answering(Protocol):
    """What answers: a model name and a function from requests to chat completions."""

    @property
    def model(self) -> str: ...

    def complete(self, request: TeacherRequest, fault: Fault | None) -> Mapping[str, Any]:
        """The chat completion, spoilt where a fault asks for it; DataError for a bad request."""
        ...


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
        self.batches: BatchRoom
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
        arrived = datetime.now(UTC).isoformat()
        try:
            request = request_of(_parse(body))
        except DataError as error:
            self.log.write(arrived=arrived, request_hash=None, status=400)
            return refuse(400, str(error))
        name = request_hash(request)
        fault = self.faults.draw(name, self.times_seen(name))
        self.stopping.wait(self.faults.latency_s)
        response = self._respond(request, fault)
        most = worst_case_tokens(request)
        self.log.write(
            arrived=arrived,
            request_hash=name,
            most_tokens=most.prompt_tokens + most.completion_tokens,
            image_sha256=request.judged[0].sha256 if request.judged else None,
            told=told_label(request.question),
            status=response.status if response else None,
            usage=response.body.get("usage") if response else None,
            fault=fault,
        )
        return response

    def _respond(self, request: TeacherRequest, fault: Fault | None) -> Response | None:
        if fault is Fault.HANG:
            return None
        if fault in (Fault.RATE_LIMITED, Fault.RATE_LIMITED_BARE):
            is_told = fault is Fault.RATE_LIMITED
            pause = {"retry-after-ms": f"{1000 * self.faults.retry_after:g}"} if is_told else {}
            return refuse(429, "simulated rate limit", code="rate_limit_exceeded", headers=pause)
        if fault is Fault.SERVER_ERROR:
            return refuse(500, "simulated server error", code="server_error")
        try:
            return Response(200, self.teacher.complete(request, fault))
        except DataError as error:
            return refuse(400, str(error))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        batches = self.server.batches
        match url.path.removeprefix("/v1").strip("/").split("/"):
            case ["health"]:
                self._send(Response(200, {"status": "ok", "model": self.server.teacher.model}))
            case ["models"]:
                model = {"id": self.server.teacher.model, "object": "model", "created": 0}
                self._send(Response(200, {"object": "list", "data": [model]}))
            case ["files"]:
                self._send(batches.list_files())
            case ["files", file_id]:
                self._send(batches.get_file(file_id))
            case ["files", file_id, "content"]:
                self._send(batches.content(file_id))
            case ["batches"]:
                self._send(_page(batches, parse_qs(url.query)))
            case ["batches", batch_id]:
                self._send(batches.get(batch_id))
            case _:
                self._send(refuse(404, f"there is no {url.path}"))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        batches = self.server.batches
        most = batches.limits.bytes + ENVELOPE if path == "/v1/files" else MOST_BYTES
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > most:
            self._turn_away(refuse(413, f"a request needs a content-length of at most {most}"))
            return
        if path == "/v1/files":
            kind = self.headers.get("content-type", "")
            self._send(batches.receive(self.rfile, int(length), kind))
            return
        body = self.rfile.read(int(length))
        match path.removeprefix("/v1").strip("/").split("/"):
            case ["chat", "completions"]:
                self._answer_chat(body)
            case ["batches"]:
                self._send(_create_batch(batches, body))
            case ["batches", batch_id, "cancel"]:
                self._send(batches.cancel(batch_id))
            case _:
                self._send(refuse(404, f"there is no {self.path}"))

    def do_DELETE(self) -> None:
        match urlsplit(self.path).path.removeprefix("/v1").strip("/").split("/"):
            case ["files", file_id]:
                self._send(self.server.batches.delete_file(file_id))
            case _:
                self._send(refuse(404, f"there is no {self.path}"))

    def _answer_chat(self, body: bytes) -> None:
        try:
            response = self.server.answer_chat(body)
        except OSError as error:
            response = refuse(500, f"cannot write the request log: {error}")
        if response is None:
            self.server.stopping.wait()
            self.close_connection = True
        else:
            self._send(response)

    def _turn_away(self, response: Response) -> None:
        """Answer a request whose body is not wanted, and linger until the client has read that.

        Closing over unread bytes resets the connection, which can take the answer with it.
        """
        self.close_connection = True
        self._send(response)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        with suppress(OSError):
            left = MOST_BYTES
            while left > 0 and (read := self.rfile.read1(READ_BYTES)):
                left -= len(read)

    def _send(self, response: Response | Download) -> None:
        if isinstance(response, Download):
            self._send_file(response.path)
            return
        body = json.dumps(response.body).encode("ascii")
        self._start(response.status, response.headers, "application/json", len(body))
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            self._start(200, {}, "application/octet-stream", os.fstat(file.fileno()).st_size)
            shutil.copyfileobj(file, self.wfile)

    def _start(self, status: int, headers: Mapping[str, str], kind: str, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The request log is kept elsewhere."""


@contextmanager
def serve(
    teacher: Answering,
    *,
    port: int = 0,
    log: Path | None = None,
    faults: Faults = NO_FAULTS,
    batches: Path | None = None,
    batch_limits: BatchLimits = ANY_BATCH,
) -> Iterator[str]:
    """Answer on loopback, in threads of this process, while the context lasts; yields the URL.

    `batches` is the folder that keeps files and batches from one server to the next; without it
    they are forgotten in the end.
    """
    _check_log(log)
    with ExitStack() as stack:
        folder = batches or Path(stack.enter_context(TemporaryDirectory(prefix="batches-")))
        try:
            server = _Server(port, teacher, faults=faults, log=RequestLog(path=log))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {error}; choose another --port"
            ) from None
        stack.callback(server.server_close)
        room = BatchRoom(folder, server.answer_chat, faults=faults, limits=batch_limits)
        server.batches = stack.enter_context(room)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        stack.callback(server.stopping.set)
        yield f"http://{HOST}:{server.server_port}/v1"


def _page(batches: BatchRoom, query: Mapping[str, list[str]]) -> Response:
    limit = query.get("limit", [""])[0]
    return batches.page(
        after=query.get("after", [None])[0],
        limit=int(limit) if limit.isdecimal() else BATCHES_PER_PAGE,
    )


def _create_batch(batches: BatchRoom, body: bytes) -> Response:
    try:
        return batches.create(_parse(body))
    except DataError as error:
        return refuse(400, str(error))


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
