"""A simulated teacher that costs next to nothing per request, so that a client can be measured.

python -m benchmarks.local_teacher '{"verdict": "fake"}' --latency 0.2

It reads a request without looking into it, waits, and answers every chat completion with the same
content. The first line of its output is its address. `GET /v1/asked` tells how many chat
completions were asked for and how many bytes came with them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import typer

HOST = "127.0.0.1"
MODEL = "simulated"
END_OF_HEAD = b"\r\n\r\n"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


class Asked(NamedTuple):
    """What a teacher was sent so far."""

    requests: int
    body_bytes: int


@dataclass
class Counts:
    """The running sums behind `Asked`."""

    requests: int = 0
    body_bytes: int = 0


class Answer(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection; clients here send no second request before the reply."""

    def __init__(self, completion: bytes, latency_s: float, counts: Counts) -> None:
        self.completion = completion
        self.latency_s = latency_s
        self.counts = counts
        self.head = b""
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            self.head += data
            if END_OF_HEAD not in self.head:
                return
            self.head, _, data = self.head.partition(END_OF_HEAD)
            self.missing = content_length(self.head)
            self.counts.body_bytes += self.missing
        self.missing -= len(data)
        if not self.missing:
            self.answer(self.head.split(maxsplit=2)[1])
            self.head = b""

    def answer(self, path: bytes) -> None:
        if path.endswith(b"/chat/completions"):
            self.counts.requests += 1
            asyncio.get_running_loop().call_later(self.latency_s, self.send, self.completion)
        elif path.endswith(b"/asked"):
            self.send(respond({"requests": self.counts.requests, "bytes": self.counts.body_bytes}))
        else:
            self.send(respond({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))

    def send(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)


def content_length(head: bytes) -> int:
    """Bytes of the body, by the head of a request."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def respond(body: dict[str, Any]) -> bytes:
    """A whole HTTP response."""
    text = json.dumps(body).encode("ascii")
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}"
    return head.encode("ascii") + END_OF_HEAD + text


def completion_of(content: str) -> dict[str, Any]:
    """The chat completion that says `content`."""
    return {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200},
    }


async def serve(content: str, latency_s: float) -> None:
    """Answer until the parent closes our standard input."""
    counts, completion = Counts(), respond(completion_of(content))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answer(completion, latency_s, counts), HOST, 0, backlog=1024
    )
    print(f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def local_teacher(content: str, *, latency_s: float) -> Iterator[str]:
    """Run the teacher in a process of its own; yields its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.local_teacher", content, "--latency", str(latency_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # leaving it closes the standard input, which ends the process
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def asked(base_url: str) -> Asked:
    """What the teacher at `base_url` was sent so far."""
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", f"{parts.path}/asked")
    body = json.load(connection.getresponse())
    connection.close()
    return Asked(requests=body["requests"], body_bytes=body["bytes"])


@app.command()
def main(
    content: Annotated[str, typer.Argument(help="What every reply says.")],
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each reply.")] = 0.2,
) -> None:
    """Serve on a free port of 127.0.0.1 until the standard input ends."""
    asyncio.run(serve(content, latency))


if __name__ == "__main__":
    app()
