"""What a layout is read from: a folder, a zip or tar archive, or a single file."""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from core.errors import ConfigError, DataError
from imaging.archives import Archive, open_archive
from imaging.files import HIDDEN, Entry, explain, find_entry, shown_name, walk

TABLES: Final = (".csv", ".json", ".jsonl", ".parquet")
MOST_FOLDERS: Final = 20_000
"""so many folders are looked into to recognise a layout"""
MOST_TABLE_BYTES: Final = 2**31
SHOWN: Final = 2


class Tree(Protocol):
    """Files under names relative to a root, with `/`."""

    @property
    def place(self) -> Path:
        """The path that was asked for."""

    @property
    def is_stream(self) -> bool:
        """Whether listing all files costs as much as reading them."""

    @property
    def outline(self) -> tuple[str, ...]:
        """Folders, and files that may be tables; enough to recognise a layout by."""

    def entries(self) -> Iterator[Entry]:
        """All files, in an order that never changes."""

    def find(self, name: str) -> Entry:
        """What stands under a name; its `refusal` says why it must not be read."""


class FolderTree:
    """A folder on a disk."""

    is_stream = False

    def __init__(self, place: Path) -> None:
        self.place = place

    @cached_property
    def outline(self) -> tuple[str, ...]:
        """Folders level by level, at most `MOST_FOLDERS`, with their tables."""
        names: list[str] = []
        folders = deque([""])
        for _ in range(MOST_FOLDERS):
            if not folders:
                break
            inner, tables = self._look_into(folders.popleft())
            folders.extend(inner)
            names.extend([*inner, *tables])
        return tuple(names)

    def _look_into(self, folder: str) -> tuple[list[str], list[str]]:
        """Folders and tables right in a folder; one that cannot be listed is left to the walk."""
        try:
            with os.scandir(self.place / folder) as scan:
                found = [entry for entry in scan if not HIDDEN.match(entry.name)]
        except PermissionError:
            return [], []
        prefix = f"{folder}/" if folder else ""
        inner = [f"{prefix}{e.name}" for e in found if e.is_dir(follow_symlinks=False)]
        tables = [f"{prefix}{e.name}" for e in found if e.name.lower().endswith(TABLES)]
        return sorted(inner), sorted(set(tables) - set(inner))

    def entries(self) -> Iterator[Entry]:
        """Folder by folder, sorted by the bytes of their names."""
        return walk(self.place)

    def find(self, name: str) -> Entry:
        """What stands under a name; links are followed as long as they end in the folder."""
        return find_entry(self.place, name)


class FileTree:
    """A single file that is no archive."""

    is_stream = False

    def __init__(self, place: Path) -> None:
        self.place = place
        self._file = place.resolve()

    @property
    def outline(self) -> tuple[str, ...]:
        """The file, where it may be a table."""
        name = self._file.name
        return (name,) if name.lower().endswith(TABLES) else ()

    def entries(self) -> Iterator[Entry]:
        """The file."""
        yield self.find(self._file.name)

    def find(self, name: str) -> Entry:
        """The file; there is no other."""
        if name != self._file.name:
            return Entry(name=name, path="", refusal="no such file")
        return find_entry(self._file.parent, name)


class ArchiveTree:
    """A zip or tar archive, read without unpacking it."""

    def __init__(self, place: Path, archive: Archive) -> None:
        self.place = place
        self.is_stream = archive.is_stream
        self._members = archive.members

    @cached_property
    def outline(self) -> tuple[str, ...]:
        """Folders and tables of all members."""
        names: set[str] = set()
        for entry in self._members():
            if not entry.hidden and entry.refusal is None:
                parts = entry.name.split("/")
                names.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
                names.update([entry.name] if entry.name.lower().endswith(TABLES) else [])
        return tuple(sorted(names, key=lambda name: (name.count("/"), name)))

    def entries(self) -> Iterator[Entry]:
        """The members in the order of the archive."""
        return self._members()

    def find(self, name: str) -> Entry:
        """The member of that name; ConfigError where members cannot be looked up."""
        if self.is_stream:
            raise ConfigError(
                f"{self.place}: a table inside a compressed archive ({shown_name(name)}) cannot be "
                "followed; uncompress the archive (a plain .tar and a .zip are read as they are)"
            )
        return self._by_name.get(name) or Entry(name=name, path="", refusal="no such file")

    @cached_property
    def _by_name(self) -> Mapping[str, Entry]:
        found: dict[str, Entry] = {}
        for entry in self._members():
            found.setdefault(entry.name, entry)
        return found


class InnerTree:
    """The one folder that a tree consists of, as archives are often packed."""

    def __init__(self, outer: Tree, folder: str) -> None:
        self.place = outer.place
        self.is_stream = outer.is_stream
        self._outer = outer
        self._prefix = f"{folder}/"

    @property
    def outline(self) -> tuple[str, ...]:
        """Folders and tables below the folder."""
        inner = [name for name in self._outer.outline if name.startswith(self._prefix)]
        return tuple(name.removeprefix(self._prefix) for name in inner)

    def entries(self) -> Iterator[Entry]:
        """All files, under their names below the folder."""
        for entry in self._outer.entries():
            yield replace(entry, name=entry.name.removeprefix(self._prefix))

    def find(self, name: str) -> Entry:
        """What stands under a name below the folder."""
        return replace(self._outer.find(self._prefix + name), name=name)


def inner_tree(tree: Tree) -> Tree | None:
    """The only folder right below the root, where nothing but it was seen there."""
    tops = {name.partition("/")[0] for name in tree.outline}
    return InnerTree(tree, tops.pop()) if len(tops) == 1 and len(tree.outline) > 1 else None


def open_tree(path: Path) -> Tree:
    """The tree at `path`; ConfigError when there is none, or it cannot be listed."""
    try:
        if not path.exists():
            raise ConfigError(f"{path}: there is no such folder or file")
        if path.is_dir():
            return FolderTree(path)
        archive = open_archive(path.resolve()) if path.is_file() else None
    except OSError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None
    return FileTree(path) if archive is None else ArchiveTree(path, archive)


def find_inside(tree: Tree, name: str) -> Entry:
    """What a table means by `name`: never anything outside the tree."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return Entry(name=name, path="", refusal="no path inside the folder")
    return tree.find("/".join(parts))


def open_table(tree: Tree, name: str) -> BinaryIO:
    """A table of the tree, to be read and closed; ConfigError when it cannot be read."""
    entry = tree.find(name)
    place = f"{tree.place}/{shown_name(name)}"
    if entry.refusal is not None:
        raise ConfigError(f"{place}: {entry.refusal}")
    try:
        if isinstance(entry.path, str):
            return Path(entry.path).open("rb")
        if isinstance(entry.path, bytes):
            return io.BytesIO(entry.path)
        return io.BytesIO(entry.path.read(MOST_TABLE_BYTES))
    except OSError as error:
        raise ConfigError(f"{place}: {explain(error)}") from None
    except DataError as error:
        raise ConfigError(f"{place}: {error}") from None


def matches(tree: Tree, pattern: str) -> list[str]:
    """Folders and tables whose whole name matches, in any case of letters; nearest first."""
    compiled = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return [name for name in tree.outline if compiled.fullmatch(name)]


def say_held(names: list[str]) -> str | None:
    """Some of what was found, as the reason for a layout; None for nothing."""
    return f"it holds {' and '.join(map(shown_name, names[:SHOWN]))}" if names else None
