"""Uploaded files of a loopback teacher: read from multipart requests, kept in a folder."""

from __future__ import annotations

import mmap
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from io import BufferedIOBase
from pathlib import Path
from typing import IO
from uuid import uuid4

from pydantic import TypeAdapter

from core.errors import DataError

MONTH_S = 30 * 86_400
CHUNK = 2**20
LONGEST_FIELD = 2**16
"""bytes"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file as `/files` describes it."""

    id: str
    bytes: int
    created_at: int
    """seconds of the Unix epoch, as `expires_at`"""
    expires_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"


class FileShelf:
    """The files of a teacher, each as `<id>.data` beside `<id>.json`; safe from many threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._files = {
            file.id: file
            for path in sorted(folder.glob("*.json"))
            for file in [TypeAdapter(StoredFile).validate_json(path.read_bytes())]
        }

    def all(self) -> list[StoredFile]:
        with self._lock:
            return list(self._files.values())

    def get(self, file_id: str) -> StoredFile | None:
        with self._lock:
            return self._files.get(file_id)

    def path_of(self, file: StoredFile) -> Path:
        return self._folder / f"{file.id}.data"

    def receive(
        self, body: BufferedIOBase, length: int, content_type: str, *, most: int
    ) -> StoredFile:
        """Keep the file of a multipart request; DataError says what does not fit."""
        received = self._folder / f"{uuid4().hex}.upload"
        try:
            _copy(body, received, length)
            parts = _parts_of(received, content_type)
            if "file" not in parts or "purpose" not in parts:
                raise DataError("an upload needs the parts `file` and `purpose`")
            purpose, part = _text_of(received, parts["purpose"]), parts["file"]
            if purpose != "batch":
                raise DataError(f"purpose {purpose!r:.40} is not known here; it must be 'batch'")
            if part.size > most:
                raise DataError(f"the file has {part.size} bytes; at most {most} are allowed")
            return self._keep(received, part, purpose)
        finally:
            received.unlink(missing_ok=True)

    def put(self, path: Path, *, file_id: str) -> StoredFile:
        """Copy a file that was written here onto the shelf, under an id of the caller's."""
        size = path.stat().st_size
        file = _describe(file_id, size, filename=path.name, purpose="batch_output")
        shutil.copyfile(path, self.path_of(file))
        self._register(file)
        return file

    def delete(self, file_id: str) -> bool:
        with self._lock:
            file = self._files.pop(file_id, None)
        if file is not None:
            self._folder.joinpath(f"{file.id}.json").unlink(missing_ok=True)
            self.path_of(file).unlink(missing_ok=True)
        return file is not None

    def _keep(self, received: Path, part: _Part, purpose: str) -> StoredFile:
        file_id = f"file-{uuid4().hex[:24]}"
        file = _describe(file_id, part.size, filename=part.filename, purpose=purpose)
        with received.open("rb") as source, self.path_of(file).open("wb") as target:
            source.seek(part.start)
            _pour(source, target, part.size)
        self._register(file)
        return file

    def _register(self, file: StoredFile) -> None:
        write_whole(self._folder / f"{file.id}.json", TypeAdapter(StoredFile).dump_json(file))
        with self._lock:
            self._files[file.id] = file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Where one part of a multipart body lies in a file."""

    name: str
    filename: str
    start: int
    size: int


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old or the new content, never a part."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


def _describe(file_id: str, size: int, *, filename: str, purpose: str) -> StoredFile:
    now = int(time.time())
    return StoredFile(
        id=file_id,
        bytes=size,
        created_at=now,
        expires_at=now + MONTH_S,
        filename=filename,
        purpose=purpose,
    )


def _copy(body: BufferedIOBase, path: Path, length: int) -> None:
    with path.open("wb") as target:
        _pour(body, target, length)


def _pour(source: BufferedIOBase, target: IO[bytes], length: int) -> None:
    while length:
        data = source.read(min(CHUNK, length))
        if not data:
            raise DataError("the request ended before its content-length")
        target.write(data)
        length -= len(data)


def _parts_of(path: Path, content_type: str) -> dict[str, _Part]:
    """The parts of a multipart/form-data body by name (RFC 7578)."""
    if not path.stat().st_size:
        raise DataError("the upload is empty")
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise DataError("an upload is a multipart/form-data request")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return {part.name: part for part in _read_parts(body, f"--{boundary}".encode())}


def _read_parts(body: mmap.mmap, mark: bytes) -> Iterator[_Part]:
    start = body.find(mark)
    while start >= 0:
        head = start + len(mark)
        content = body.find(b"\r\n\r\n", head)
        end = body.find(b"\r\n" + mark, content)
        if body[head : head + 2] == b"--" or content < 0 or end < 0:
            return
        headers = BytesHeaderParser().parsebytes(body[head:content].lstrip() + b"\r\n\r\n")
        yield _Part(
            name=str(headers.get_param("name", "", header="content-disposition")),
            filename=str(headers.get_filename("") or ""),
            start=content + 4,
            size=end - content - 4,
        )
        start = end + 2


def _text_of(path: Path, part: _Part) -> str:
    with path.open("rb") as file:
        file.seek(part.start)
        return file.read(min(part.size, LONGEST_FIELD)).decode("utf-8", errors="replace")
