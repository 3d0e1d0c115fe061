"""Find and read files of a folder that nobody has checked: no link out, no pipe, no device."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from core.errors import DataError
from core.printable import printable

KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)
REASONS: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOENT: "no such file",
        errno.ENOTDIR: "no such file",
        errno.EACCES: "no permission to read it",
        errno.ELOOP: "a link that leads in circles",
        errno.ENAMETOOLONG: "its name is too long",
    }
)
HIDDEN: Final = re.compile(r"\.(?!\.)")
"""how hidden names begin: a dot, and no second one"""


class Packed(Protocol):
    """A file that lies inside another one."""

    def read(self, max_bytes: int) -> bytes:
        """Its bytes; DataError when they are damaged or more than `max_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in a folder or an archive, other than a folder that is walked into."""

    name: str
    """relative to the folder, with `/`, as `os.fsdecode` gives it"""
    path: str | bytes | Packed
    """where to read it, no link; or the bytes themselves"""
    refusal: str | None = None
    """why it is not to be read; None for a regular file"""
    hidden: bool = False
    size: int = 0
    mtime_ns: int = 0


def walk(root: Path) -> Iterator[Entry]:
    """All entries below `root`, folder by folder, sorted by the bytes of their names.

    Hidden entries (the name begins with one dot) are marked, and hidden folders not entered. A link
    is followed only to a regular file inside `root`; linked folders are never entered. Of each
    folder only the names are held.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            files, folders = _list_folder(root / folder)
        except OSError as error:
            reason = f"a folder that cannot be listed: {explain(error)}"
            yield Entry(name=folder, path=str(root / folder), refusal=reason)
            continue
        prefix = f"{folder}/" if folder else ""
        waiting.extend(f"{prefix}{os.fsdecode(name)}" for name in reversed(folders))
        yield from (_inspect(root, f"{prefix}{os.fsdecode(name)}") for name in files)


def _list_folder(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """The names in a folder: those of folders to be walked into, after all others; both sorted."""
    files: list[bytes] = []
    folders: list[bytes] = []
    with os.scandir(os.fsencode(folder)) as scan:
        for entry in scan:
            is_hidden = HIDDEN.match(os.fsdecode(entry.name)) is not None
            is_open = entry.is_dir(follow_symlinks=False) and not is_hidden
            (folders if is_open else files).append(entry.name)
    return sorted(files), sorted(folders)


def _inspect(root: Path, place: str) -> Entry:
    path = f"{root}/{place}"
    if HIDDEN.match(place.rpartition("/")[2]):
        return Entry(name=place, path=path, hidden=True)
    try:
        status = os.lstat(path)
    except OSError as error:
        return Entry(name=place, path=path, refusal=explain(error))
    is_link = stat.S_ISLNK(status.st_mode)
    return find_entry(root, place) if is_link else _regular(place, path, status)


def find_entry(root: Path, place: str) -> Entry:
    """What stands at `place`, relative to `root`; its `refusal` says why it must not be read.

    Links are followed wherever they stand on the way, as long as the end is inside `root`.
    """
    path = str(root / place)
    try:
        target = os.path.realpath(path, strict=True)
        status = os.lstat(target)
    except FileNotFoundError:
        reason = "a link to a missing file" if Path(path).is_symlink() else "no such file"
        return Entry(name=place, path=path, refusal=reason)
    except OSError as error:
        return Entry(name=place, path=path, refusal=explain(error))
    except ValueError:
        reason = "no file name: it holds a character that none can have"
        return Entry(name=place, path=path, refusal=reason)
    if not Path(target).is_relative_to(os.path.realpath(root)):
        reason = "leads out of the folder, not followed"
        return Entry(name=place, path=path, refusal=reason)
    return _regular(place, target, status)


def _regular(place: str, path: str, status: os.stat_result) -> Entry:
    if not stat.S_ISREG(status.st_mode):
        reason = f"{_kind_of(status)}, not a regular file"
        return Entry(name=place, path=path, refusal=reason)
    return Entry(name=place, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _kind_of(status: os.stat_result) -> str:
    return next((name for test, name in KINDS if test(status.st_mode)), "something else")


def explain(error: OSError) -> str:
    """An operating system error in a few words, without a path."""
    return REASONS.get(error.errno or 0) or error.strerror or "cannot be read"


def read_file(path: str | Path, *, max_bytes: int) -> bytes:
    """The bytes of a regular file; DataError for anything else and for more than `max_bytes`.

    The last part of the path must be no link. Nothing but a regular file is ever read from, and
    opening never waits (a pipe without a writer would).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        raise DataError("a link, not followed" if is_link else explain(error)) from None
    try:
        return _read_regular(descriptor, max_bytes)
    except OSError as error:
        raise DataError(f"cannot be read: {explain(error)}") from None
    finally:
        os.close(descriptor)


def _read_regular(descriptor: int, max_bytes: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{_kind_of(status)}, not a regular file")
    if status.st_size > max_bytes:
        raise DataError(f"too large: {status.st_size} bytes, the most is {max_bytes}")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(max_bytes)


def shown_name(name: str) -> str:
    """A file name as text for a database row or a line of output; no two names give the same text.

    What is not UTF-8 stands as `\\xff`, a control character as `\\u000a`, a backslash doubled.
    """
    try:
        data = os.fsencode(name)
    except UnicodeEncodeError:  # half a character: no name of a file, but a table may hold one
        data = name.encode("utf-8", "surrogatepass")
    text = data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return printable(text)
