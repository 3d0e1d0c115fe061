"""What a loopback teacher answers over HTTP: JSON, an error in OpenAI's form, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Response(NamedTuple):
    """Status, JSON body and further headers."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}


class Download(NamedTuple):
    """A file, sent as it lies on the disk."""

    path: Path


def refuse(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as OpenAI-compatible servers spell it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Response(status, {"error": error}, headers or {})
