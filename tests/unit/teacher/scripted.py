"""A real HTTP server on loopback that says what a test tells it to, and remembers what it heard."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from core.records import Picture, TeacherRequest


@dataclass
class Answer:
    """One scripted response."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


@dataclass
class Heard:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    port: int
    """of the client, which tells connections apart"""

    @property
    def payload(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class ScriptedServer(ThreadingHTTPServer):
    """Gives its answers in order and repeats the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [Answer()]
        self.heard: list[Heard] = []
        self._turn = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_answer(self, heard: Heard) -> Answer:
        with self._turn:
            self.heard.append(heard)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.next_answer(Heard(self.path, headers, body, self.client_address[1]))
        time.sleep(answer.delay_s)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the tests read `heard`."""


def completion(content: str | None = "{}", **choice: Any) -> Answer:
    """A chat completion as OpenAI-compatible servers send it."""
    message = {"role": "assistant", "content": content, "refusal": choice.pop("refusal", None)}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "sturgeon-2",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_tokens_details": {"cached_tokens": 400, "image_tokens": 85},
            "completion_tokens_details": {"reasoning_tokens": 50},
        },
    }
    return Answer(body=json.dumps(body).encode())


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI-compatible servers send it."""
    error = {"message": message, "type": code, "code": code, "param": None}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=json.dumps({"error": error}).encode(), headers=named)


def draw_jpeg(seed: int = 0, side: int = 128) -> bytes:
    """A noisy picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def make_picture(data: bytes | None = None, **changes: Any) -> Picture:
    """A noisy picture, or another, as a request shows it."""
    values: dict[str, Any] = {"media_type": "image/jpeg", "detail": "high", **changes}
    return Picture(data=draw_jpeg() if data is None else data, **values)


def make_request(**changes: Any) -> TeacherRequest:
    """A request about a noisy picture known to be fake."""
    values: dict[str, Any] = {
        "model": "sturgeon-2",
        "instructions": "Look closely.",
        "question": "Known authenticity: fake\nDescribe the traces.",
        "pictures": (make_picture(),),
        "reply_schema": '{"type":"object"}',
        "temperature": 0.0,
        "max_output_tokens": 500,
    }
    return TeacherRequest(**{**values, **changes})
