"""How pictures get where experts see them: under random names, which tell nothing.

Our own server shows them from a folder beside its data, where they are linked: an upload takes
longer than its task. Another server is sent them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final

from annotation.desk import Desk
from annotation.projects import pictures_project
from core.errors import DataError
from core.records import ImageRecord

UPLOADS_AT_ONCE: Final = 50
"""the server takes 100 files in one request at most"""
SHOWN_AS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "JPEG": (".jpg", "image/jpeg"),
        "PNG": (".png", "image/png"),
        "WEBP": (".webp", "image/webp"),
        "GIF": (".gif", "image/gif"),
        "BMP": (".bmp", "image/bmp"),
    }
)
"""suffix and media type of the formats that browsers show"""


class Pictures:
    """Where the pictures of one server's tasks lie."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def require(self, image: ImageRecord) -> None:
        """DataError unless there is a picture that a browser shows."""
        if image.format not in SHOWN_AS:
            raise DataError(f"no browser shows {image.format}")
        if not self._desk.store.holds(image.path):
            self._desk.store.read(image.path)  # says why not

    def put(self, images: Mapping[str, ImageRecord]) -> dict[str, str]:
        """Let experts see images, given by random keys; the address of each."""
        named = {f"{key}{SHOWN_AS[image.format][0]}": image for key, image in images.items()}
        shelf = self._desk.shelf
        found = dict(self._upload(named) if shelf is None else self._link(named, shelf))
        return {key: found[name] for key, name in zip(images, named, strict=True)}

    def remove(self, key: str) -> None:
        """Let nobody see the picture of a key any longer."""
        if self._desk.shelf is not None:
            for path in self._desk.shelf.glob(f"{key}.*"):
                path.unlink(missing_ok=True)
        self._desk.studio.delete_uploads(self._project_id, of_name=key)

    def _link(self, named: Mapping[str, ImageRecord], shelf: Path) -> Iterator[tuple[str, str]]:
        assert self._project_id
        for name, image in named.items():
            _place(self._desk.store.path(image.path), shelf / name)
            yield name, f"/data/local-files/?d={shelf.name}/{name}"

    def _upload(self, named: Mapping[str, ImageRecord]) -> Iterator[tuple[str, str]]:
        remaining = iter(named.items())
        while part := dict(islice(remaining, UPLOADS_AT_ONCE)):
            files = {
                name: (self._desk.store.read(image.path), SHOWN_AS[image.format][1])
                for name, image in part.items()
            }
            yield from self._desk.studio.upload_pictures(self._project_id, files).items()

    @cached_property
    def _project_id(self) -> int:
        """Of the project that uploads go to, and that gives the right to see the shelf."""
        project_id = pictures_project(self._desk)
        if self._desk.shelf is not None:
            self._desk.studio.show_folder(project_id, self._desk.shelf)
        return project_id


def _place(source: Path, target: Path) -> None:
    """Let a file be found in another folder too, complete or not at all."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    except OSError:  # another disk, or one that knows no links
        beside = target.with_name(f".{target.name}")
        shutil.copyfile(source, beside)
        beside.replace(target)
