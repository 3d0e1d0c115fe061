"""The image store: what teacher, expert and model see, in files named by the hash of the bytes."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.errors import ConfigError, DataError
from core.ids import sha256_bytes
from imaging.files import explain

PLACE: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}\.[a-z]{3,4}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
INCOMING: Final = "incoming"
STALE_SECONDS: Final = 3600


class ImageStore:
    """A folder of `ab/cd/<sha256>.<suffix>`; a file in it is never changed.

    Only withdrawn images are removed. A file appears under its name complete or not at all: it is
    written beside and renamed. Adding the same bytes again does nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, data: bytes, suffix: str, *, digest: str | None = None) -> str:
        """Keep `data`; returns its path relative to the store. ConfigError when it cannot write.

        `digest`: the SHA-256 of `data`, where the caller has it already.
        """
        digest = digest or sha256_bytes(data)
        place = f"{digest[:2]}/{digest[2:4]}/{digest}{suffix}"
        path = self.path(place)
        try:
            if not _is_whole(path, len(data)):
                self._write(path, data)
        except OSError as error:
            raise ConfigError(
                f"image store {self.folder}: cannot write ({error.strerror}); make room or grant "
                "the right to write there, or name another folder in FAKESCOPE_HOME"
            ) from None
        return place

    def _write(self, path: Path, data: bytes) -> None:
        beside = self.folder / INCOMING / uuid.uuid4().hex
        try:
            _in_folder(beside.parent, lambda: beside.write_bytes(data))
            _in_folder(path.parent, lambda: beside.replace(path))
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def path(self, place: str) -> Path:
        """Where the file of a relative path lies; DataError for what is no path of a store."""
        if not PLACE.fullmatch(place):
            raise DataError(f"{place!r} is no path of an image store")
        return self.folder / place

    def holds(self, place: str) -> bool:
        """Whether there is a file at a relative path."""
        return self.path(place).is_file()

    def read(self, place: str) -> bytes:
        """The bytes at a relative path; DataError when they are not there."""
        try:
            return self.path(place).read_bytes()
        except OSError as error:
            raise DataError(
                f"image {place} is not in the image store {self.folder} ({explain(error)}); "
                "ingest its collection again"
            ) from None

    def remove(self, digest: str) -> list[str]:
        """Remove the file whose bytes have this SHA-256; returns the paths that it was under.

        DataError for what is no SHA-256, ConfigError when the file cannot be removed.
        """
        if not DIGEST.fullmatch(digest):
            raise DataError(f"{digest!r} is no SHA-256")
        folder = self.folder / digest[:2] / digest[2:4]
        found = [path for path in folder.glob(f"{digest}.*") if path.stem == digest]
        for path in found:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"image store {self.folder}: {path.name} cannot be removed "
                    f"({error.strerror}); grant the right to write there"
                ) from None
        return [path.relative_to(self.folder).as_posix() for path in sorted(found)]

    def sweep(self) -> None:
        """Remove what killed processes left half written more than an hour ago."""
        for path in (self.folder / INCOMING).glob("*"):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)


def _in_folder(folder: Path, act: Callable[[], object]) -> None:
    """Act, and make the folder where that fails for want of it."""
    try:
        act()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        act()


def _is_whole(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size  # noqa: PTH116
    except FileNotFoundError:
        return False
