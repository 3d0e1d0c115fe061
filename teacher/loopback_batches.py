"""The batch mode of a loopback teacher: OpenAI's `/batches`, answered line by line in a folder.

A server that is started again on the same folder goes on where the last one ended.
"""

from __future__ import annotations

import fcntl
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from pydantic import TypeAdapter

from core.errors import ConfigError, DataError
from core.ids import canonical_json
from core.records import BatchState
from teacher.faults import BatchFault, Faults
from teacher.loopback_responses import Download, Response, refuse
from teacher.loopback_uploads import FileShelf, StoredFile, write_whole

ENDPOINT = "/v1/chat/completions"
WINDOW = "24h"
DAY_S = 86_400
LINES_AT_ONCE = 16
MOST_ERRORS = 20
"""that a failed validation lists"""
LOCK_SECONDS = 10.0
LOCK_STEP_S = 0.02
"""between two looks at a lock"""
SPOILT = ("", "no JSON", "[1, 2]", '{"custom_id": "nobody-asked", "response": null}')
"""lines that a spoilt output file holds beside the good ones"""

Answer = Callable[[bytes], Response | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """The most that one batch may hold."""

    lines: int = 50_000
    bytes: int = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchObject:
    """One batch as `/batches` describes it; moments in seconds of the Unix epoch."""

    id: str
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str]
    number: int
    """how many batches came before"""
    status: BatchState
    created_at: int
    expires_at: int
    object: str = "batch"
    errors: dict[str, Any] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: dict[str, int] = field(
        default_factory=lambda: {"total": 0, "completed": 0, "failed": 0}
    )
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    cancelling_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None


class BatchRoom:
    """Takes batches and works through them in a thread of its own while the context lasts."""

    def __init__(
        self, folder: Path, answer: Answer, *, faults: Faults, limits: BatchLimits
    ) -> None:
        self.limits = limits
        self._folder = folder
        self._answer = answer
        self._faults = faults
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> BatchRoom:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._alone = _lock_folder(self._folder)
        self._files = FileShelf(self._folder / "files")
        self._batches = _read_batches(self._folder)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._alone.close()

    def create(self, body: Mapping[str, Any]) -> Response:
        file = self._files.get(str(body.get("input_file_id")))
        if file is None or file.purpose != "batch":
            return refuse(400, f"there is no input file {body.get('input_file_id')!r:.80}")
        if body.get("endpoint") != ENDPOINT or body.get("completion_window") != WINDOW:
            return refuse(400, f"only endpoint {ENDPOINT} and completion_window {WINDOW} are known")
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict) or not all(map(_is_text, metadata.values())):
            return refuse(400, "metadata is an object of texts")
        now = int(time.time())
        with self._changed:
            batch = BatchObject(
                id=f"batch_{uuid4().hex[:24]}",
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window=WINDOW,
                metadata=metadata,
                number=len(self._batches),
                status=BatchState.VALIDATING,
                created_at=now,
                expires_at=now + DAY_S,
            )
            self._save(batch)
            self._changed.notify_all()
        return Response(200, asdict(batch))

    def get(self, batch_id: str) -> Response:
        with self._changed:
            batch = self._batches.get(batch_id)
        if batch is None:
            return refuse(404, f"there is no batch {batch_id!r:.80}")
        return Response(200, asdict(batch))

    def page(self, *, after: str | None, limit: int) -> Response:
        """The newest first, `limit` of them, those after the batch `after`."""
        with self._changed:
            newest = sorted(self._batches.values(), key=lambda b: b.number, reverse=True)
        ids = [batch.id for batch in newest]
        rest = newest[ids.index(after) + 1 :] if after in ids else newest
        page = [asdict(batch) for batch in rest[:limit]]
        return Response(200, {"object": "list", "data": page, "has_more": len(rest) > limit})

    def cancel(self, batch_id: str) -> Response:
        with self._changed:
            batch = self._batches.get(batch_id)
            if batch is None:
                return refuse(404, f"there is no batch {batch_id!r:.80}")
            if batch.status.is_ended:
                return refuse(409, f"the batch is {batch.status} already")
            self._move(batch, BatchState.CANCELLING)
            self._changed.notify_all()
        return self.get(batch_id)

    def receive(self, body: BufferedIOBase, length: int, content_type: str) -> Response:
        try:
            file = self._files.receive(body, length, content_type, most=self.limits.bytes)
        except DataError as error:
            return refuse(400, str(error))
        return Response(200, asdict(file))

    def list_files(self) -> Response:
        data = [asdict(file) for file in self._files.all()]
        return Response(200, {"object": "list", "data": data, "has_more": False})

    def get_file(self, file_id: str) -> Response:
        file = self._files.get(file_id)
        return Response(200, asdict(file)) if file else _no_file(file_id)

    def content(self, file_id: str) -> Response | Download:
        file = self._files.get(file_id)
        return Download(self._files.path_of(file)) if file else _no_file(file_id)

    def delete_file(self, file_id: str) -> Response:
        if not self._files.delete(file_id):
            return _no_file(file_id)
        return Response(200, {"id": file_id, "object": "file", "deleted": True})

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._step(batch)
            except (DataError, OSError) as error:
                self._fail(batch, [{"code": "server_error", "message": str(error)}])

    def _next(self) -> BatchObject | None:
        """The oldest batch that has not ended, once there is one; None when it is time to stop."""
        with self._changed:
            while not self._stopping:
                waiting = [b for b in self._batches.values() if not b.status.is_ended]
                if waiting:
                    return min(waiting, key=lambda b: b.number)
                self._changed.wait()
        return None

    def _step(self, batch: BatchObject) -> None:
        """Take a batch from one state to the next."""
        if not self._rest(batch):
            return
        if batch.status is BatchState.VALIDATING:
            self._validate(batch)
        elif batch.status is BatchState.IN_PROGRESS:
            self._answer_lines(batch)
        elif batch.status is BatchState.FINALIZING:
            self._finish(batch, self._end_of(batch))
        else:
            self._finish(batch, BatchState.CANCELLED)

    def _validate(self, batch: BatchObject) -> None:
        file = self._input(batch)
        errors = list(_problems(self._files.path_of(file), self.limits))
        if self._fault(batch) is BatchFault.FAILED:
            errors.append({"code": "simulated", "message": "simulated failure of the validation"})
        if errors:
            self._fail(batch, errors[:MOST_ERRORS])
            return
        total = sum(1 for _ in _lines(self._files.path_of(file)))
        counts = {"total": total, "completed": 0, "failed": 0}
        self._move(batch, BatchState.IN_PROGRESS, request_counts=counts)

    def _answer_lines(self, batch: BatchObject) -> None:
        """Answer what is not answered yet, in an order of our own, a few lines at a time."""
        output, errors = self._parts(batch)
        done = {_id_of(line) for part in (output, errors) for line in _whole_lines(part)}
        path = self._files.path_of(self._input(batch))
        starts = [start for start, line in _lines(path) if _id_of(line) not in done]
        random.Random(batch.number).shuffle(starts)
        if self._fault(batch) in (BatchFault.EXPIRED, BatchFault.CANCELLED):
            total = len(starts) + len(done)
            starts = starts[: max(0, round(total * self._faults.batch_share) - len(done))]
        with ThreadPoolExecutor(LINES_AT_ONCE) as pool:
            for place in range(0, len(starts), LINES_AT_ONCE):
                if not self._goes_on(batch):
                    return
                some = starts[place : place + LINES_AT_ONCE]
                for answered in pool.map(lambda start: self._answer_line(path, start), some):
                    if answered is not None:
                        is_good = answered["response"]["status_code"] == 200
                        _append(output if is_good else errors, answered)
        self._move(batch, BatchState.FINALIZING)

    def _answer_line(self, path: Path, start: int) -> dict[str, Any] | None:
        with path.open("rb") as file:
            file.seek(start)
            line = json.loads(file.readline())
        response = self._answer(json.dumps(line["body"]).encode())
        if response is None:
            return None
        request_id = f"req_{uuid4().hex[:24]}"
        return _output_line(
            line["custom_id"],
            response={
                "status_code": response.status,
                "request_id": request_id,
                "body": response.body,
            },
        )

    def _finish(self, batch: BatchObject, end: BatchState) -> None:
        """Write the two files; a batch that ended early names every line that was not run."""
        output, errors = self._parts(batch)
        good, bad = list(_whole_lines(output)), list(_whole_lines(errors))
        if end is not BatchState.COMPLETED:
            done = {_id_of(line) for line in (*good, *bad)}
            for _, line in _lines(self._files.path_of(self._input(batch))):
                if (custom_id := _id_of(line)) not in done:
                    error = {"code": f"batch_{end}", "message": "the batch ended before this"}
                    _append(errors, _output_line(custom_id, error=error))
        if self._fault(batch) is BatchFault.SPOILT:
            _spoil(output)
        total = batch.request_counts["total"]
        counts = {"total": total, "completed": len(good), "failed": total - len(good)}
        self._move(
            batch,
            end,
            request_counts=counts,
            output_file_id=self._shelve(output),
            error_file_id=self._shelve(errors),
        )
        if self._batches[batch.id].status.is_ended:
            output.unlink(missing_ok=True)
            errors.unlink(missing_ok=True)

    def _shelve(self, part: Path) -> str | None:
        """Publish a written file under an id that follows from its name, so that twice is once."""
        if not part.is_file():
            return None
        return self._files.put(part, file_id=f"file-{part.stem}").id

    def _end_of(self, batch: BatchObject) -> BatchState:
        fault = self._fault(batch)
        if fault in (BatchFault.EXPIRED, BatchFault.CANCELLED):
            return BatchState(fault)
        return BatchState.EXPIRED if time.time() > batch.expires_at else BatchState.COMPLETED

    def _fault(self, batch: BatchObject) -> BatchFault | None:
        is_faulty = batch.number < self._faults.num_faulty_batches
        return self._faults.batch_fault if is_faulty else None

    def _fail(self, batch: BatchObject, errors: list[dict[str, Any]]) -> None:
        self._move(batch, BatchState.FAILED, errors={"object": "list", "data": errors})

    def _input(self, batch: BatchObject) -> StoredFile:
        file = self._files.get(batch.input_file_id)
        if file is None:
            raise DataError(f"the input file {batch.input_file_id} was deleted")
        return file

    def _parts(self, batch: BatchObject) -> tuple[Path, Path]:
        return self._folder / f"{batch.id}-output.jsonl", self._folder / f"{batch.id}-error.jsonl"

    def _goes_on(self, batch: BatchObject) -> bool:
        with self._changed:
            return not self._stopping and self._batches[batch.id].status is BatchState.IN_PROGRESS

    def _rest(self, batch: BatchObject) -> bool:
        """Stay in a state for a while; False where it is time to stop, or the batch was moved."""

        def is_disturbed() -> bool:
            return self._stopping or self._batches[batch.id].status is not batch.status

        is_cancelled = batch.status is BatchState.CANCELLING
        with self._changed:
            seconds = 0.0 if is_cancelled else self._faults.batch_seconds
            return not self._changed.wait_for(is_disturbed, seconds)

    def _move(self, batch: BatchObject, state: BatchState, **changes: Any) -> None:
        """Move on from the state that `batch` was seen in, unless it was cancelled meanwhile."""
        if state is not BatchState.VALIDATING:
            changes[f"{state}_at"] = int(time.time())
        with self._changed:
            if self._stopping or self._batches[batch.id].status is not batch.status:
                return
            self._save(replace(batch, status=state, **changes))

    def _save(self, batch: BatchObject) -> None:
        self._batches[batch.id] = batch
        data = TypeAdapter(BatchObject).dump_json(batch)
        write_whole(self._folder / f"{batch.id}.json", data)


def _no_file(file_id: str) -> Response:
    return refuse(404, f"there is no file {file_id!r:.80}")


def _read_batches(folder: Path) -> dict[str, BatchObject]:
    read = TypeAdapter(BatchObject).validate_json
    found = [read(path.read_bytes()) for path in sorted(folder.glob("batch_*.json"))]
    return {batch.id: batch for batch in found}


def _lock_folder(folder: Path) -> IO[bytes]:
    """Two servers on one folder would answer each line twice; the lock ends with its process."""
    file = folder.joinpath("lock").open("wb")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise ConfigError(
                    f"{folder}: another rehearsal teacher works on the batches there"
                ) from None
            time.sleep(LOCK_STEP_S)
        else:
            return file


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each line that is not blank begins, and the line."""
    with path.open("rb") as file:
        start = 0
        for line in file:
            if line.strip():
                yield start, line
            start += len(line)


def _problems(path: Path, limits: BatchLimits) -> Iterator[dict[str, Any]]:
    """Why an input file cannot be run."""
    seen: set[str] = set()
    models: set[str] = set()
    if path.stat().st_size > limits.bytes:
        yield {"code": "file_too_large", "message": f"at most {limits.bytes} bytes are allowed"}
    number = 0
    for number, (_, line) in enumerate(_lines(path), start=1):
        if number > limits.lines:
            yield {"code": "too_many_lines", "message": f"at most {limits.lines} are allowed"}
            return
        wrong = _what_is_wrong_with(line, seen, models)
        if wrong is not None:
            code, message = wrong
            yield {"code": code, "message": message, "line": number, "param": None}
    if not number:
        yield {"code": "empty_file", "message": "the input file has no line"}


def _what_is_wrong_with(line: bytes, seen: set[str], models: set[str]) -> tuple[str, str] | None:
    try:
        entry = json.loads(line)
        custom_id, body = entry["custom_id"], entry["body"]
        if entry["method"] != "POST" or entry["url"] != ENDPOINT:
            return "invalid_url", f"each line is a POST to {ENDPOINT}"
        models.add(str(body["model"]))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return "invalid_json_line", f"no request with custom_id, method, url and body: {error!r}"
    if not isinstance(custom_id, str) or custom_id in seen:
        return "duplicate_custom_id", f"custom_id {custom_id!r:.80} is no text or occurs twice"
    seen.add(custom_id)
    if len(models) > 1:
        return "mismatched_model", "all lines of a batch name the same model"
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _output_line(
    custom_id: str, *, response: Mapping[str, Any] | None = None, error: Any = None
) -> dict[str, Any]:
    return {
        "id": f"batch_req_{uuid4().hex[:24]}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _id_of(line: bytes) -> str:
    """The custom_id of a line; none for a line that was spoilt."""
    try:
        return str(json.loads(line)["custom_id"])
    except (ValueError, LookupError, TypeError):
        return ""


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file in the making; a last one that was torn is cut off first."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = 0
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
                yield line
        file.truncate(end)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(canonical_json(line).encode() + b"\n")


def _spoil(path: Path) -> None:
    """Put junk, unknown and repeated lines among the good ones."""
    lines = [line.decode().rstrip("\n") for line in _whole_lines(path)]
    mixed = [*SPOILT, *lines, *lines[:1]]
    path.write_text("".join(f"{line}\n" for line in mixed), encoding="utf-8")
