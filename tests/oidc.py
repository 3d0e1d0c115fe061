"""A small OpenID Connect provider on this machine: discovery, authorisation, tokens, keys."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "dashboard", "only of this test"
PERSON = {"sub": "7", "name": "A reviewer", "email": "reviewer@example.org"}
DISCOVERY = "/.well-known/openid-configuration"
BUTTON = "Sign in as a reviewer"


@dataclass
class Provider:
    """What one provider knows: its key, and the codes that it has given out and not taken back."""

    address: str
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    asked: dict[str, dict[str, str]] = field(default_factory=dict)
    """what each code was asked for with"""

    @property
    def discovery(self) -> str:
        return f"{self.address}{DISCOVERY}"

    def describe(self) -> dict[str, Any]:
        return {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def admit(self, asked: dict[str, str]) -> str:
        """Where the browser goes once somebody has signed in."""
        code = secrets.token_urlsafe()
        self.asked[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def give_token(self, form: dict[str, str], authorisation: str) -> dict[str, Any] | None:
        """None for a code that was not given out, or was used; or for another client."""
        client = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.asked.pop(form.get("code", ""), None)
        if asked is None or authorisation != f"Basic {client}":
            return None
        now = int(time.time())
        claims = {"iss": self.address, "aud": CLIENT, "iat": now, "exp": now + 600, **PERSON}
        if "nonce" in asked:
            claims["nonce"] = asked["nonce"]
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return {"access_token": "none", "token_type": "Bearer", "id_token": token}


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, provider: list[Provider], *arguments: Any) -> None:
        self.provider = provider
        super().__init__(*arguments)

    def do_GET(self) -> None:
        (provider,) = self.provider
        place = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(place.query).items()}
        if place.path == DISCOVERY:
            self._answer(provider.describe())
        elif place.path == "/keys":
            self._answer({"keys": [provider.key.as_dict(private=False)]})
        elif place.path == "/authorize" and asked.get("client_id") == CLIENT:
            link = f"/signed-in?{place.query}"
            self._send(200, "text/html", f'<a href="{link}">{BUTTON}</a>'.encode())
        elif place.path == "/signed-in":
            self.send_response(302)
            self.send_header("Location", provider.admit(asked))
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        (provider,) = self.provider
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        token = provider.give_token(form, self.headers.get("Authorization", ""))
        if token is None:
            self.send_error(401)
        else:
            self._answer(token)

    def log_message(self, *_: Any) -> None:
        """Nothing is written to the terminal."""

    def _answer(self, found: dict[str, Any]) -> None:
        self._send(200, "application/json", json.dumps(found).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider that answers until the block ends."""
    known: list[Provider] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, known)) as server:
        known.append(Provider(f"http://127.0.0.1:{server.server_address[1]}"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield known[0]
        server.shutdown()
