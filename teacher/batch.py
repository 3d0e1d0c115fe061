"""Batch mode: many requests in one file, answered within a day and for less.

The limits are those of OpenAI: 50,000 lines and 200 MB in a file. What comes back is untrusted:
its lines stand in any order, and may be broken, foreign, repeated or missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from core.errors import DataError
from core.records import BatchState, TeacherReply
from teacher.client import Teacher, read_reply
from teacher.failures import FailedCall, NotRun, Refused, ServerFailed, Unreachable, kind_of

if TYPE_CHECKING:
    import httpx2
    import openai

ENDPOINT = "/v1/chat/completions"
OUR_ID = "fakescope_batch"
"""key of the metadata by which a batch is found again"""
PAGE = 100
ANY_MODEL = "any"
LONGEST_LINE = 2**24
"""bytes of a result that are read; the rest of such a line is left out"""
LONGEST_REASON = 300
"""characters"""
NOT_RUN = frozenset({"batch_cancelled", "batch_expired"})
"""error codes of lines that were never run"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as its teacher describes it."""

    remote_id: str
    state: BatchState
    input_file_id: str
    batch_id: str | None
    """ours, from the metadata"""
    output_file_id: str | None
    error_file_id: str | None
    num_done: int
    """lines that were answered or failed"""
    errors: tuple[tuple[int | None, str], ...]
    """why the validation failed: number of the line, where it has one, and reason"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of an output or error file: the attempt that it belongs to, and what came of it."""

    attempt_id: str
    reply: TeacherReply | None
    """still without its request hash"""
    failure: FailedCall | None
    """set where `reply` is not"""


class BatchTeacher(Teacher):
    """A teacher with the files and batches of OpenAI's API."""

    def upload(self, file: IO[bytes], name: str) -> str:
        """Send an input file; returns the teacher's name for it. Nothing is run yet."""
        import httpx2

        form: openai.RequestOptions = {"headers": {"content-type": "multipart/form-data"}}
        answer = self._ask(
            lambda: self._client.post(
                "/files",
                cast_to=httpx2.Response,
                body={"purpose": "batch"},
                files={"file": (name, file, "application/jsonl")},
                options=form,
            )
        )
        return _required(answer, "id")

    def create_batch(self, input_file_id: str, *, batch_id: str) -> RemoteBatch:
        """Have an uploaded file run; from here on it costs money."""
        asked = {
            "input_file_id": input_file_id,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {OUR_ID: batch_id},
        }
        return _read_batch(self._ask(lambda: self._post_json("/batches", asked)))

    def batch(self, remote_id: str) -> RemoteBatch:
        """How far a batch is."""
        return _read_batch(self._ask(lambda: self._get(f"/batches/{_segment(remote_id)}")))

    def find_batch(self, batch_id: str) -> RemoteBatch | None:
        """The batch that was created under our id; None when the teacher has none."""
        found = (item for item in self._batches() if _our_id(item) == batch_id)
        return next(map(_read_batch, found), None)

    def cancel_batch(self, remote_id: str) -> RemoteBatch:
        """Ask for an early end; what was run by then is there to be fetched, and is billed."""
        path = f"/batches/{_segment(remote_id)}/cancel"
        return _read_batch(self._ask(lambda: self._post_json(path, {})))

    def lines(self, file_id: str) -> Iterator[bytes]:
        """The lines of a file, as they come in; the file as a whole is never in memory."""
        import httpx2

        unread: openai.RequestOptions = {"headers": {"x-stainless-raw-response": "stream"}}
        response = self._call(
            lambda: self._client.get(
                f"/files/{_segment(file_id)}/content", cast_to=httpx2.Response, options=unread
            ),
            model=ANY_MODEL,
        )
        try:
            yield from split_lines(response.iter_bytes())
        except httpx2.HTTPError as error:
            raise Unreachable(f"the download of {file_id} broke off: {error!r}") from None
        finally:
            response.close()

    def delete_file(self, file_id: str) -> None:
        """Delete a file at the teacher; one that is gone already is fine."""
        import httpx2

        path = f"/files/{_segment(file_id)}"
        try:
            self._ask(lambda: self._client.delete(path, cast_to=httpx2.Response))
        except Refused as error:
            if error.status != 404:
                raise

    def _batches(self) -> Iterator[Mapping[str, Any]]:
        """All batches of the account, the newest first, as the teacher describes them."""
        query = {"limit": str(PAGE)}
        while True:
            page = self._ask(partial(self._get, f"/batches?{urlencode(query)}"))
            found = [item for item in page.get("data") or () if isinstance(item, dict)]
            yield from found
            if not page.get("has_more") or not found:
                return
            query["after"] = _required(found[-1], "id")

    def _post_json(self, path: str, asked: Mapping[str, Any]) -> httpx2.Response:
        import httpx2

        return self._client.post(path, cast_to=httpx2.Response, body=asked)

    def _ask(self, call: Callable[[], httpx2.Response]) -> Mapping[str, Any]:
        response = self._call(call, model=ANY_MODEL)
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ServerFailed(f"{self.base_url} answered with something else than JSON")
        return answer


def input_line(attempt_id: str, body: bytes) -> bytes:
    """One line of an input file."""
    head = {"custom_id": attempt_id, "method": "POST", "url": ENDPOINT}
    return json.dumps(head).encode("ascii")[:-1] + b', "body": ' + body + b"}\n"


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes; of one that is too long only the beginning."""
    line = b""
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        line = (line + first)[:LONGEST_LINE]
        for following in rest:
            yield line
            line = following[:LONGEST_LINE]
    if line:
        yield line


def read_result(line: bytes) -> Result:
    """What a line of an output or error file says; DataError where it says nothing of use."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError("no JSON") from None
    attempt_id = entry.get("custom_id") if isinstance(entry, dict) else None
    if not isinstance(attempt_id, str):
        raise DataError("no custom_id")
    response, error = entry.get("response"), entry.get("error")
    if isinstance(response, dict) and response.get("status_code") == 200:
        return Result(attempt_id=attempt_id, reply=_read_reply(response), failure=None)
    if isinstance(response, dict):
        body = response.get("body")
        error = body.get("error") if isinstance(body, dict) else None
        failure = _failure_of(response.get("status_code"), error)
    else:
        failure = _failure_of(None, error)
    return Result(attempt_id=attempt_id, reply=None, failure=failure)


def _read_reply(response: Mapping[str, Any]) -> TeacherReply:
    body = json.dumps(response.get("body"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    request_id = response.get("request_id")
    return read_reply(
        body,
        request_hash="",
        request_id=request_id if isinstance(request_id, str) else None,
        latency_s=0.0,
    )


def _failure_of(status: Any, error: Any) -> FailedCall:
    """The failure that the same answer to a single call would be."""
    error = error if isinstance(error, dict) else {}
    codes = [str(error.get(name)) for name in ("code", "type")]
    said = f"{status or codes[0]}: {_one_line(error.get('message'))}"
    if NOT_RUN.intersection(codes):
        return NotRun(said)
    if not isinstance(status, int):
        status = 500
    kind = kind_of(status, *codes)
    said = f"the teacher answered {said}"
    return Refused(said, status=status) if kind is Refused else kind(said)


def _read_batch(answer: Mapping[str, Any]) -> RemoteBatch:
    counts = answer.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    return RemoteBatch(
        remote_id=_required(answer, "id"),
        state=_read_state(answer.get("status")),
        input_file_id=str(answer.get("input_file_id")),
        batch_id=_our_id(answer),
        output_file_id=answer.get("output_file_id") or None,
        error_file_id=answer.get("error_file_id") or None,
        num_done=sum(n for n in (counts.get("completed"), counts.get("failed")) if n),
        errors=tuple(_read_errors(answer.get("errors"))),
    )


def _our_id(answer: Mapping[str, Any]) -> str | None:
    metadata = answer.get("metadata")
    return metadata.get(OUR_ID) if isinstance(metadata, dict) else None


def _read_state(status: Any) -> BatchState:
    try:
        return BatchState(status)
    except ValueError:
        raise ServerFailed(f"the teacher has a batch in an unknown state {status!r:.40}") from None


def _read_errors(errors: Any) -> Iterator[tuple[int | None, str]]:
    listed = errors.get("data") if isinstance(errors, dict) else None
    for error in listed if isinstance(listed, list) else ():
        if isinstance(error, dict):
            line = error.get("line")
            reason = _one_line(f"{error.get('code')}: {error.get('message')}")
            yield (line if isinstance(line, int) else None), reason


def _segment(name: str) -> str:
    """A name that the teacher gave, as one segment of a path."""
    return quote(name, safe="")


def _required(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise ServerFailed(f"the teacher's answer has no {name}")
    return value


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:LONGEST_REASON]
