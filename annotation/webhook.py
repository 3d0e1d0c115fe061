"""Label Studio calls when there is something to pull: `python -m annotation webhook`.

The server signs nothing, repeats nothing and numbers nothing, and an expert waits until it has
called. So a call is answered at once, its secret header is all that is looked at, and a lost,
double or late one does no harm: what is true is what a pull finds.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from annotation.desk import Desk
from annotation.projects import answered_projects
from core.errors import ConfigError

HEADER: Final = "X-FakeScope-Hint"
MOST_BYTES: Final = 1 << 16
"""of a call; ours name an action and no more"""
PATIENCE_S: Final = 5.0
"""how long a caller may take"""


class Receiver:
    """Where hints arrive; every one sets `hint`. The secret is as old as the receiver."""

    def __init__(self, host: str, port: int) -> None:
        self.hint = threading.Event()
        self.secret: Final = secrets.token_urlsafe(32)
        try:
            self._server = _Server((host, port), self)
        except OSError as error:
            reason = str(error.strerror).lower()
            raise ConfigError(f"cannot listen on {host}:{port} ({reason}): see --port") from None
        self.url: Final = f"http://{host}:{self._server.server_port}/"

    def knows(self, secret: str) -> bool:
        """Whether this is the secret; takes as long whatever it is."""
        return hmac.compare_digest(secret.encode(), self.secret.encode())

    def listen(self) -> None:
        """Answer calls until `close`."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(host: str, port: int) -> Iterator[Receiver]:
    """A receiver at work; ConfigError when the port is taken."""
    receiver = Receiver(host, port)
    thread = threading.Thread(target=receiver.listen, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.close()
        thread.join()


def call_back(desk: Desk, url: str, secret: str, *, known: Collection[str]) -> list[str]:
    """Have the server call when something was answered in a project whose key is not known.

    Returns the keys of those projects.
    """
    found = [p for p in answered_projects(desk) if p.project_key not in known]
    for project in found:
        desk.studio.set_webhook(project.project_id or 0, url, header=HEADER, secret=secret)
    return [project.project_key for project in found]


def call_no_more(desk: Desk) -> None:
    """Let the server call no longer."""
    for project in answered_projects(desk):
        desk.studio.delete_webhook(project.project_id or 0, header=HEADER)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(address, _Call)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that goes away is no news."""


class _Call(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_S
    server_version = "FakeScope"
    sys_version = ""

    def do_POST(self) -> None:
        self.send_response(self._judge())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _judge(self) -> HTTPStatus:
        """Take the hint when it is one; what the body says is not read."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return HTTPStatus.LENGTH_REQUIRED
        if len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self.rfile.read(int(length))
        if not self.server.receiver.knows(self.headers.get(HEADER, "")):
            return HTTPStatus.FORBIDDEN
        self.server.receiver.hint.set()
        return HTTPStatus.NO_CONTENT

    def log_message(self, *_: object) -> None:
        """Say nothing: a request may hold a secret."""
