"""Members of zip and tar archives, read where they lie. Nothing is ever unpacked to a disk."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from core.errors import ConfigError, DataError
from imaging.decode import Limits
from imaging.files import HIDDEN, Entry, explain
from imaging.unpacking import (
    DAMAGE,
    BoundedHeader,
    TooMuch,
    is_compressed_tar,
    read_compressed_tar,
)

ZIP_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
TAR_SIGNATURE: Final = b"ustar"
TAR_SIGNATURE_AT: Final = 257
TAR_BLOCK: Final = 512
UNREADABLE: Final = (".7z", ".rar")
STREAM: Final = "compressed tar"
LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
"""signature, length of the name, length of the extra field"""
DEFLATE_SLACK: Final = 65_536
"""so much larger than the file its packed form may be"""
ENCRYPTED: Final = 1
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar archive: a stretch of bytes."""

    archive: str
    start: int
    size: int

    def read(self, max_bytes: int) -> bytes:
        """The bytes; DataError when the archive ends early or there are more than `max_bytes`."""
        _check_size(self.size, max_bytes)
        return _read_at(self.archive, self.start, self.size)


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member of a zip archive, by the place of its local header."""

    archive: str
    header: int
    packed_size: int
    size: int
    crc: int
    is_deflated: bool

    def read(self, max_bytes: int) -> bytes:
        """The bytes; DataError when they are damaged or more than `max_bytes`."""
        _check_size(self.size, max_bytes)
        _check_size(self.packed_size, max_bytes + DEFLATE_SLACK)
        packed = _read_at(self.archive, self._start(), self.packed_size)
        data = _inflate(packed, self.size) if self.is_deflated else packed
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise DataError("damaged inside the archive")
        return data

    def _start(self) -> int:
        header = _read_at(self.archive, self.header, LOCAL_HEADER.size)
        signature, name, extra = LOCAL_HEADER.unpack(header)
        if signature != ZIP_SIGNATURES[0]:
            raise DataError("damaged inside the archive")
        return self.header + LOCAL_HEADER.size + int(name) + int(extra)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DataError(f"too large: {size} bytes, the most is {max_bytes}")


def _read_at(path: str, start: int, size: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise DataError(f"its archive cannot be read: {explain(error)}") from None
    if len(data) != size:
        raise DataError("its archive ends early")
    return data


def _inflate(packed: bytes, size: int) -> bytes:
    """Never more than one byte beyond `size`, whatever the packed bytes expand to."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error:
        raise DataError("damaged inside the archive") from None


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose members can be read."""

    members: Callable[[], Iterator[Entry]]
    """lists them in their order; may be asked for again"""
    is_stream: bool
    """its members can be read only in their order, each when it is listed"""


def open_archive(path: Path) -> Archive | None:
    """The archive `path`; None for a file that is none, ConfigError for one of an unknown kind."""
    if path.name.lower().endswith(UNREADABLE):
        raise ConfigError(
            f"{path}: such an archive is not read; unpack it, or pack it as .zip or .tar"
        )
    kind = _kind_of(path)
    if kind is None:
        return None
    return Archive(lambda: _checked(READERS[kind](path)), is_stream=kind == STREAM)


def _kind_of(path: Path) -> str | None:
    if is_compressed_tar(path):
        return STREAM
    with path.open("rb") as file:
        start = file.read(TAR_BLOCK)
    if start.startswith(ZIP_SIGNATURES):
        return "zip"
    return "tar" if start[TAR_SIGNATURE_AT:].startswith(TAR_SIGNATURE) else None


def _checked(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Each name once, none that leads out of the archive; what is hidden is marked."""
    seen: set[str] = set()
    for entry in entries:
        parts = entry.name.split("/")
        if entry.name.startswith("/") or ".." in parts:
            yield _refuse(entry, "its name leads out of the archive")
        elif entry.name in seen:
            yield _refuse(entry, "its name stands in the archive twice")
        elif any(HIDDEN.match(part) for part in parts):
            yield Entry(name=entry.name, path=entry.path, hidden=True)
        else:
            yield entry
        seen.add(entry.name)


def _refuse(entry: Entry, reason: str) -> Entry:
    return Entry(name=entry.name, path=entry.path, refusal=entry.refusal or reason)


def _plain_name(name: str) -> str:
    """Without `./` and doubled slashes; a leading slash stays."""
    plain = "/".join(part for part in name.split("/") if part not in ("", "."))
    return f"/{plain}" if name.startswith("/") else plain


def _zip_entries(path: Path) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise ConfigError(f"{path}: not a whole zip archive ({error})") from None
    return (_zip_entry(str(path), member) for member in members if not member.is_dir())


def _zip_entry(archive: str, member: zipfile.ZipInfo) -> Entry:
    return Entry(
        name=_plain_name(member.filename),
        path=ZipMember(
            archive,
            member.header_offset,
            member.compress_size,
            member.file_size,
            member.CRC,
            member.compress_type == zipfile.ZIP_DEFLATED,
        ),
        refusal=_zip_refusal(member),
        size=member.file_size,
        mtime_ns=member.CRC,
    )


def _zip_refusal(member: zipfile.ZipInfo) -> str | None:
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        return "a link or a device, not a regular file"
    if member.flag_bits & ENCRYPTED:
        return "encrypted"
    if member.compress_type not in METHODS:
        return f"packed by method {member.compress_type}, which is not read here"
    return None


def _tar_entries(path: Path) -> Iterator[Entry]:
    end = 0
    try:
        with tarfile.open(path, "r:", tarinfo=BoundedHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every one
                if not member.isdir():
                    yield _tar_entry(str(path), member)
            end = archive.offset
    except (tarfile.TarError, ValueError, EOFError):
        yield _broken(path)
        return
    except OSError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
    if not _ends_at(path, end):
        yield _broken(path)


def _broken(path: Path) -> Entry:
    reason = "the archive is damaged or ends early; what follows cannot be read"
    return Entry(name=path.name, path=str(path), refusal=reason)


def _ends_at(path: Path, end: int) -> bool:
    """Whether a tar archive ends there as it should: with nothing, or with a block of zeros."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(end)
        return end <= size and not any(file.read(TAR_BLOCK))


def _tar_entry(archive: str, member: tarfile.TarInfo) -> Entry:
    return _describe(member, TarMember(archive, member.offset_data, member.size))


def _describe(member: tarfile.TarInfo, content: bytes | TarMember) -> Entry:
    is_plain = member.isreg() and not member.issparse()
    return Entry(
        name=_plain_name(member.name),
        path=content,
        refusal=None if is_plain else "a link, a device or a sparse file, not a regular file",
        size=member.size,
        mtime_ns=int(member.mtime * 1e9) % 2**62,
    )


def _stream_entries(path: Path) -> Iterator[Entry]:
    """Each entry with its bytes, which are in memory while it is looked at."""
    most = Limits().max_bytes
    try:
        for member, content in read_compressed_tar(path, most_bytes=most):
            if member.isdir():
                continue
            entry = _describe(member, content or b"")
            if member.size > most:
                entry = _refuse(entry, f"too large: {member.size} bytes, the most is {most}")
            yield entry
    except TooMuch as error:
        reason = f"{error}, far more than pictures would; what follows is not read"
        yield Entry(name=path.name, path=str(path), refusal=reason)
    except DAMAGE:
        yield _broken(path)


READERS: Final[Mapping[str, Callable[[Path], Iterator[Entry]]]] = MappingProxyType(
    {"zip": _zip_entries, "tar": _tar_entries, STREAM: _stream_entries}
)
