"""Real brokers for tests: the one in the environment, a local one, or one started for the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LOCAL_RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"


def skip_or_fail(missing: str, install: str) -> None:
    """Skip with the reason; in CI a missing server is a failure."""
    reason = f"{missing} is not there: install it with `{install}`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The address of an empty Redis database."""
    if address := os.environ.get("TEST_REDIS_URL"):
        yield address
        return
    binary = shutil.which("redis-server")
    if binary is None:
        skip_or_fail("redis-server", "apt-get install redis-server")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def rabbitmq_server() -> Iterator[str]:
    """The address of a RabbitMQ server that is already running."""
    address = os.environ.get("TEST_RABBITMQ_URL", LOCAL_RABBITMQ)
    port = int(address.rsplit(":", 1)[1].strip("/"))
    if not is_open(port):
        skip_or_fail("a RabbitMQ server", "apt-get install rabbitmq-server")
    yield address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for_port(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_open(port):
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.05)
