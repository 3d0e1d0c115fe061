"""Compressed tar archives, uncompressed while they are read from end to end, within bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Final, Protocol

TAR_NAME: Final = re.compile(
    r".+\.(?:tgz|tbz2?|txz|tzst|tar\.(?:gz|bz2|xz|zst))", re.IGNORECASE | re.DOTALL
)
SIGNATURE_BYTES: Final = 8
CHUNK: Final = 2**18
MOST_HEADER_BYTES: Final = 2**20
"""of a long name or of further fields; tarfile holds them in memory"""
MOST_TIMES: Final = 100
"""larger than the file it may become: pictures are compressed already"""
ALWAYS_ALLOWED: Final = 2**30
"""bytes that any archive may become"""
XZ_MEMORY: Final = 2**28
"""bytes; the strongest usual setting needs a quarter"""
DAMAGE: Final = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError)
"""what reading a damaged or hostile archive raises"""


class Reader(Protocol):
    """What tarfile reads from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class TooMuch(ValueError):
    """The archive becomes more than it may."""


class BoundedHeader(tarfile.TarInfo):
    """A header of a tar archive whose extension, which is read into memory, is of bounded size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> BoundedHeader:
        """Read one block; TarError for a header that announces too large an extension."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENSIONS and header.size > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


EXTENSIONS: Final = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class _Unpacked:
    """What a decompressor makes of a file; several streams one after the other are one."""

    def __init__(self, file: BinaryIO, start: Callable[[], Any]) -> None:
        self._file = file
        self._start = start
        self._stream = start()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; EOFError where the file ends early."""
        while True:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0") or self._file.read(CHUNK)
                if not packed.strip(b"\0"):
                    return b""
                self._stream = self._start()
            elif self._stream.needs_input:
                packed = self._file.read(CHUNK)
                if not packed:
                    raise EOFError("it ends early")
            if data := self._stream.decompress(packed, size):
                return bytes(data)


def _open_zstd(file: BinaryIO) -> Reader:
    import pyarrow

    stream: Reader = pyarrow.CompressedInputStream(file, "zstd")
    return stream


OPENERS: Final[Mapping[bytes, Callable[[BinaryIO], Reader]]] = MappingProxyType(
    {
        b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
        b"BZh": lambda file: _Unpacked(file, bz2.BZ2Decompressor),
        b"\xfd7zXZ\0": lambda file: _Unpacked(
            file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        ),
        b"\x28\xb5\x2f\xfd": _open_zstd,
    }
)
"""by how such files begin"""


class _Bounded:
    """Reads on until an archive has become larger than any collection of pictures would."""

    def __init__(self, reader: Reader, most: int) -> None:
        self._reader = reader
        self._most = most
        self._left = most

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch(f"it becomes more than {self._most} bytes")
        return data


def is_compressed_tar(path: Path) -> bool:
    """Whether name and first bytes are those of a compressed tar archive."""
    if not TAR_NAME.fullmatch(path.name):
        return False
    with path.open("rb") as file:
        return file.read(SIGNATURE_BYTES).startswith(tuple(OPENERS))


def read_compressed_tar(
    path: Path, *, most_bytes: int
) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Members in their order, with the bytes of regular files of at most `most_bytes`.

    One member is held at a time. One of `DAMAGE` where the archive is damaged or ends early, and
    `TooMuch` where it becomes too large for what it is.
    """
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        start = file.read(SIGNATURE_BYTES)
        file.seek(0)
        opened = next(opener for sign, opener in OPENERS.items() if start.startswith(sign))(file)
        most = max(ALWAYS_ALLOWED, MOST_TIMES * path.stat().st_size)
        source: Any = _Bounded(opened, most)
        archive = stack.enter_context(
            tarfile.open(fileobj=source, mode="r|", tarinfo=BoundedHeader)
        )
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every one
            content = None
            if member.isreg() and not member.issparse() and member.size <= most_bytes:
                inside = archive.extractfile(member)
                content = inside.read() if inside is not None else None
            yield member, content
