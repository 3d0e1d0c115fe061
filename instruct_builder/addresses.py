"""Folders that are elsewhere: any address that fsspec knows, such as `s3://bucket/folder`.

What is read is copied to this machine first, and what is written is made here and then uploaded, so
that everything else knows folders alone.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import ConfigError, StateError
from core.ids import sha256_text
from instruct_builder.shards import writing

UNDER_WAY = "upload.partial"
"""is there from the first to the last file of an upload"""
PARTIAL = ".partial"
"""end of the name of a file that is still arriving"""
_SECRET = re.compile(r"(?<=//)[^/@\s]*@")


def is_elsewhere(address: str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in address or "::" in address


def shown(address: str) -> str:
    """An address without user and password."""
    return _SECRET.sub("", address)


@contextmanager
def folder_at(address: str) -> Iterator[Path]:
    """The folder at an address; a copy of it, for as long as it is needed, when it is elsewhere."""
    if not is_elsewhere(address):
        yield Path(address)
        return
    with tempfile.TemporaryDirectory(prefix="fakescope-copy-") as name:
        with _explained(address):
            copy = _download(address, Path(name))
        yield copy


def _download(address: str, into: Path) -> Path:
    files, root = _open(address)
    copy = into / (PurePosixPath(root).name or "folder")
    copy.mkdir(parents=True)
    for path in sorted(files.find(root)):
        target = copy / PurePosixPath(path).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(target))
    return copy


def upload(folder: Path, address: str, *, last: str) -> None:
    """Copy a folder to an address; `last` is the file that tells others that all is there.

    It goes before anything is changed and comes back at the end; what the folder has no more goes.
    Every file gets its name when it is whole.
    """
    with _explained(address):
        files, root = _open(address)
        files.makedirs(root, exist_ok=True)
        files.pipe_file(f"{root}/{UNDER_WAY}", b"")
        marker = f"{root}/{last}"
        if files.exists(marker):
            files.rm_file(marker)
        names = [
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        ]
        names = [*sorted(name for name in names if name != last), last]
        for path in set(files.find(root)) - {f"{root}/{name}" for name in (*names, UNDER_WAY)}:
            files.rm_file(path)
        for name in names:
            files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            files.put_file(str(folder / name), f"{root}/{name}{PARTIAL}")
            files.mv(f"{root}/{name}{PARTIAL}", f"{root}/{name}")
        files.rm_file(f"{root}/{UNDER_WAY}")


@contextmanager
def amended_at(address: str, work: Path, *, last: str) -> Iterator[Path]:
    """What is at an address, to be changed: itself, or a copy below `work` that is uploaded.

    A copy whose upload was cut off is there the next time, and goes first; one that arrived goes.
    StateError while another command changes it, or when it was changed elsewhere meanwhile.
    """
    if not is_elsewhere(address):
        yield Path(address)
        return
    with _held(address, work) as folder:
        present = read_bytes(address, last)
        if present is not None:
            _copy_anew(address, folder)
        if not folder.is_dir():
            raise ConfigError(f"{shown(address)}: holds no {last}, so it cannot be changed")
        yield folder
        if present != (folder / last).read_bytes():
            if read_bytes(address, last) != present:
                raise StateError(f"{shown(address)}: was changed meanwhile; run this again")
            _upload_or_say_how_to_go_on(folder, address, last=last)
        shutil.rmtree(folder)


@contextmanager
def made_at(address: str, work: Path, *, last: str) -> Iterator[Path]:
    """A folder to make something in: the one at the address, or one below `work` that is uploaded.

    It stays, so that what was cut off goes on there. A ConfigError where there is something else,
    StateError while another command changes it.
    """
    if not is_elsewhere(address):
        yield Path(address)
        return
    with _held(address, work) as folder:
        present = read_bytes(address, last)
        if not folder.exists() and is_foreign(address, last=last):
            raise ConfigError(
                f"{shown(address)} is not empty and holds no {last}; name another with --out"
            )
        yield folder
        if present != (folder / last).read_bytes():
            upload(folder, address, last=last)


@contextmanager
def _held(address: str, work: Path) -> Iterator[Path]:
    """The folder of this machine for an address, which no other command may change meanwhile."""
    folder = work / sha256_text(address)[:16]
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{shown(address)}: another command is changing it; wait for it to end"
            ) from None
        yield folder


def _copy_anew(address: str, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}{PARTIAL}")
    for old in (folder, partial):
        shutil.rmtree(old, ignore_errors=True)
    with _explained(address):
        _download(address, partial).replace(folder)
    partial.rmdir()


def _upload_or_say_how_to_go_on(folder: Path, address: str, *, last: str) -> None:
    try:
        upload(folder, address, last=last)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; run it again: until then what is there is incomplete"
        ) from None


def is_there(address: str) -> bool:
    """Whether a folder or an address holds anything."""
    if not is_elsewhere(address):
        return Path(address).is_dir()
    with _explained(address):
        files, root = _open(address)
        return bool(files.exists(root) and files.find(root))


def read_bytes(address: str, name: str) -> bytes | None:
    """A file of the folder at an address; None when it is not there."""
    with _explained(address):
        files, root = _open(address)
        path = f"{root}/{name}"
        return bytes(files.cat_file(path)) if files.exists(path) else None


def is_foreign(address: str, *, last: str) -> bool:
    """Whether something is there that no upload brought, finished or cut off."""
    with _explained(address):
        files, root = _open(address)
        ours = any(files.exists(f"{root}/{name}") for name in (last, UNDER_WAY))
        return bool(not ours and files.exists(root) and files.find(root))


def _open(address: str) -> tuple[Any, str]:
    """A file system and the path of the folder in it."""
    import fsspec

    files, root = fsspec.url_to_fs(address)
    return files, str(root).rstrip("/")


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"{shown(address)}: there is nothing there") from None
    except Exception as error:  # noqa: BLE001 - what a store's client raises is its own
        raise ConfigError(f"{shown(address)}: {shown(' '.join(str(error).split()))}") from None
