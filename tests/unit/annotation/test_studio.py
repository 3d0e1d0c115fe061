"""What is no usable Label Studio is refused in one line that names the remedy and no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.studio import Studio
from core.errors import ConfigError, TransientError
from tests.brokers import free_port

SECRET = "0123456789abcdef-secret"
VERSION = {"label-studio-os-package": {"version": "1.23.2"}}
Answer = tuple[int, Any]
Answers = dict[str, Answer | Callable[[str | None], Answer]]
"""by path; a function is asked with the authorization that was sent"""


@contextmanager
def server(answers: Answers) -> Iterator[str]:
    """The address of a server that gives these answers by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0], (404, {}))
            code, body = answer(self.headers["Authorization"]) if callable(answer) else answer
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"/api/version": (200, {"label-studio-os-package": {"version": "1.8.0"}})}, "runs.*1.8.0"),
        ({"/api/version": (200, {"label-studio-os-package": {"version": "2.0.0"}})}, "runs.*2.0.0"),
        ({"/api/version": (200, {"other": "thing"})}, "is no Label Studio"),
        ({"/api/version": (200, "<html>")}, "is no Label Studio"),
        ({}, "refuses /api/version: 404"),
        ({"/api/version": (200, VERSION), "/api/current-user/whoami": (401, {})}, "API_KEY"),
        ({"/api/version": (503, "busy")}, "failed at /api/version: 503"),
    ],
    ids=["old", "new", "json", "html", "missing", "key", "busy"],
)
def test_what_is_no_usable_server_is_a_configuration_error(answers: Answers, reason: str) -> None:
    with server(answers) as url, pytest.raises(ConfigError, match=reason) as error:
        Studio(url, SecretStr(SECRET))
    assert SECRET not in str(error.value)


def test_a_server_that_fails_later_is_worth_another_try() -> None:
    answers: Answers = {
        "/api/version": (200, VERSION),
        "/api/current-user/whoami": (200, {"id": 1}),
        "/api/projects/1/": (502, "bad gateway"),
    }
    with (
        server(answers) as url,
        Studio(url, SecretStr(SECRET)) as studio,
        pytest.raises(TransientError, match="failed at /api/projects/1/: 502"),
    ):
        studio.project(1)


def test_a_personal_token_is_exchanged_again_when_what_it_gave_has_expired() -> None:
    issued = iter(["first", "second"])
    answers: Answers = {
        "/api/version": (200, VERSION),
        "/api/token/refresh/": lambda _: (200, {"access": next(issued)}),
        "/api/current-user/whoami": (200, {"id": 1}),
        "/api/projects/1/": lambda sent: (200 if sent == "Bearer second" else 401, {"title": "a"}),
    }
    with server(answers) as url, Studio(url, SecretStr("head.body.signature")) as studio:
        assert studio.project(1) == {"title": "a"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "run `make annotate`"),
        ({"LABEL_STUDIO_URL": "http://127.0.0.1:{port}"}, "give LABEL_STUDIO_API_KEY too"),
        (
            {"LABEL_STUDIO_URL": "http://127.0.0.1:{port}", "LABEL_STUDIO_API_KEY": SECRET},
            "does not answer",
        ),
        ({"LABEL_STUDIO_URL": "ftp://somewhere"}, "is no web address"),
        ({"LABEL_STUDIO_URL": "http://me:word@somewhere"}, "LABEL_STUDIO_API_KEY"),
    ],
    ids=["none", "no-key", "down", "address", "password"],
)
@pytest.mark.parametrize("command", ["setup", "push", "pull"])
def test_the_command_ends_with_code_2_and_one_line(
    command: str,
    variables: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "DATABASE_URL", "FAKESCOPE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(port=free_port()))
    done = CliRunner().invoke(app, [command])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert SECRET not in done.output
    assert "word" not in line.replace("password", "")


def test_status_asks_no_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "undelivered": 0,
        "tasks": {},
        "annotations": {},
        "corrected_images": 0,
        "guided_images": 0,
        "hard_images": 0,
        "exemplars": {},
        "preferences": None,
        "flags": [],
    }
