"""The one edge to any OpenAI-compatible server; nothing else imports `openai`."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from core.errors import ConfigError, TransientError
from core.records import TeacherReply, TeacherRequest, Usage
from core.servers import server_of
from teacher.failures import (
    EVERY_REQUEST,
    FailedCall,
    Refused,
    TimedOut,
    Unreachable,
    kind_of,
)
from teacher.request import body_of, request_hash

if TYPE_CHECKING:
    import httpx2
    import openai

Answer = TypeVar("Answer")

CHAT = b"chat/completions"
CONNECT_SECONDS = 5.0
"""with half of `core.limits.HEADROOM_S` for the rest of the way"""
USER_AGENT = "fakescope"
JSON_BODY = {"content-type": "application/json"}
KEPT_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "x-stainless-raw-response",  # the library reads it back from the request it has sent
    }
)
"""whatever else the library adds, also from the environment, stays on this machine"""
NO_KEY = "none"
"""stands in the client where there is no key; never sent"""
UNREADABLE = "unreadable"
"""finish reason of a body that is no chat completion"""


def is_loopback(base_url: str) -> bool:
    """Whether the server runs on this machine, so that asking it costs nothing."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Teacher:
    """A connection to one teacher, for many threads; made after a fork, one per process.

    Without `api_key` no credential is sent at all. Nothing is taken from the environment but, for
    servers elsewhere, the proxy settings.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, timeout_s: float = 120.0
    ) -> None:
        import httpx2
        import openai

        self.base_url = _checked_address(base_url)
        self._server = server_of(base_url)
        self._timeout_s = timeout_s
        key = None if api_key is None else _checked_key(api_key)
        timeout = openai.Timeout(timeout_s, connect=min(CONNECT_SECONDS, timeout_s))
        trust_env = not is_loopback(base_url)
        connect = partial(
            openai.DefaultHttpx2Client,
            timeout=timeout,
            trust_env=trust_env,
            verify=httpx2.create_ssl_context(trust_env=trust_env),
            follow_redirects=False,
            event_hooks={"request": [_keep_headers(key)]},
        )
        self._lines = _Lines(connect)
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key=key or NO_KEY,
            max_retries=0,
            timeout=timeout,
            http_client=connect(),
        )
        base = self._client.base_url
        self._chat_url = base.copy_with(raw_path=base.raw_path + CHAT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self._lines.close()

    def send(self, request: TeacherRequest) -> TeacherReply:
        """One call, no retry. A body that cannot be read is a reply too: it was paid for."""
        body = body_of(request)
        started = time.perf_counter()
        response = self._call(lambda: self._post(body), model=request.model)
        return read_reply(
            response.content,
            request_hash=request_hash(request),
            request_id=response.headers.get("x-request-id"),
            latency_s=time.perf_counter() - started,
        )

    def check(self) -> None:
        """Fail early on a wrong address or key; a server without a list of models passes."""
        try:
            response = self._call(lambda: self._get("/models"), model="any")
        except Unreachable as error:
            raise ConfigError(str(error)) from None
        except Refused as error:
            if error.status != 404:
                raise
            return
        if "data" not in _parse_object(response.text):
            raise ConfigError(
                f"{self._server} answers, but not as an OpenAI-compatible server does: "
                "check OPENAI_BASE_URL (most end in /v1)"
            )

    def _post(self, body: bytes) -> httpx2.Response:
        """Send a chat request over a line of its own, past the library's types and options.

        Those would take as much time again as all the rest of the call.
        """
        import httpx2
        import openai

        try:
            with self._lines.lend() as line:
                response = line.post(self._chat_url, content=body, headers=JSON_BODY)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(error.request) from error
        except httpx2.HTTPError as error:
            raise openai.APIConnectionError(request=error.request) from error
        if response.is_success:
            return response
        said = _parse_object(response.text).get("error")
        text = _mapping(said).get("message") or response.text
        raise openai.APIStatusError(str(text), response=response, body=said)

    def _get(self, path: str) -> httpx2.Response:
        import httpx2

        return self._client.get(path, cast_to=httpx2.Response)

    def _call(self, call: Callable[[], Answer], *, model: str) -> Answer:
        import openai

        try:
            return call()
        except openai.APIStatusError as error:
            raise self._failure_of(error, model) from None
        except openai.APITimeoutError:
            raise TimedOut(f"{self._server} gave no reply in {self._timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: openai.APIConnectionError) -> Unreachable:
        reason = _one_line(str(error.__cause__ or error))
        return Unreachable(
            f"no teacher answers at {self._server} ({reason}): "
            "check OPENAI_BASE_URL, and that the server there is running"
        )

    def _failure_of(self, error: openai.APIStatusError, model: str) -> FailedCall:
        status = error.status_code
        said = f"{self._server} answered {status}: {_one_line(error.message)}"
        kind = kind_of(status, error.code, error.type)
        if kind is Refused:
            return Refused(f"{said}; {_remedy(error, model)}", status=status)
        if issubclass(kind, TransientError):
            return kind(said, retry_after=retry_after(error.response.headers))
        return kind(said)


class _Lines:
    """Connections that are kept, each lent to one caller at a time; the last one back goes first.

    A pool that all callers share looks at each of its connections whenever one is wanted.
    """

    def __init__(self, connect: Callable[[], httpx2.Client]) -> None:
        self._connect = connect
        self._idle: list[httpx2.Client] = []

    @contextmanager
    def lend(self) -> Iterator[httpx2.Client]:
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._connect()
        try:
            yield line
        finally:
            self._idle.append(line)

    def close(self) -> None:
        for line in self._idle:
            line.close()


def read_reply(
    body: bytes, *, request_hash: str, request_id: str | None, latency_s: float
) -> TeacherReply:
    """Keep the body as it came, and what of the wire format can be read in it; never fails."""
    raw = _storable(body.decode("utf-8", errors="replace"))
    completion = _parse_object(raw)
    choice = _first(completion.get("choices"))
    message = _mapping(choice.get("message"))
    return TeacherReply(
        request_hash=request_hash,
        raw=raw,
        content=_text_of(message.get("content")),
        refusal=_text_of(message.get("refusal")),
        finish_reason=_text_of(choice.get("finish_reason")) or UNREADABLE,
        model=_text_of(completion.get("model")) or "",
        usage=_read_usage(_mapping(completion.get("usage"))),
        request_id=request_id or _text_of(completion.get("id")),
        latency_s=latency_s,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait, given as a number or as a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return seconds * unit
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _keep_headers(key: str | None) -> Callable[[httpx2.Request], None]:
    credential = {} if key is None else {"authorization": f"Bearer {key}"}

    def keep(request: httpx2.Request) -> None:
        for name in list(request.headers):
            if name.lower() not in KEPT_HEADERS:
                del request.headers[name]
        host = request.url.netloc.decode("ascii")
        request.headers.update(
            {"host": host, "accept": "application/json", "user-agent": USER_AGENT, **credential}
        )

    return keep


def _checked_address(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not base_url.isascii() or any(map(str.isspace, base_url)):
        raise ConfigError(
            f"OPENAI_BASE_URL: {base_url!r} is no address of a server; "
            "it looks like https://host/v1 or http://127.0.0.1:8000/v1"
        )
    return base_url


def _checked_key(api_key: str) -> str:
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key and api_key):
        raise ConfigError("OPENAI_API_KEY: is empty, or holds a character that no key has")
    return api_key


def _remedy(error: openai.APIStatusError, model: str) -> str:
    if error.code in EVERY_REQUEST - {"model_not_found"}:
        return "check the account, and the recipe's arm (model, temperature, max_output_tokens)"
    if error.status_code in {401, 402, 403}:
        return "check OPENAI_API_KEY, and what its account may use"
    return f"check that OPENAI_BASE_URL is right (most end in /v1) and knows the model {model!r}"


def _one_line(text: str, limit: int = 300) -> str:
    line = " ".join(_storable(text).split())
    return line if len(line) <= limit else line[:limit] + "…"


def _storable(text: str) -> str:
    """Text that every database takes: no NUL, no half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _parse_object(raw: str) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(raw))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Mapping[str, Any]:
    return _mapping(value[0]) if isinstance(value, list) and value else {}


def _text_of(value: Any) -> str | None:
    """Text; some servers send content in parts."""
    if isinstance(value, list):
        parts = [_text_of(_mapping(part).get("text")) for part in value]
        value = "".join(part for part in parts if part) or None
    return _storable(value) if isinstance(value, str) else None


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    prompt = _mapping(usage.get("prompt_tokens_details"))
    completion = _mapping(usage.get("completion_tokens_details"))
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(prompt.get("cached_tokens")),
        image_tokens=_count(prompt.get("image_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_count(completion.get("reasoning_tokens")),
    )


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if is_count else 0


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
