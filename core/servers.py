"""What the server of a teacher is called wherever something is kept about it."""

from __future__ import annotations

from urllib.parse import urlsplit


def server_of(teacher: str) -> str:
    """The same for every spelling of an address: never user, password or query.

    `teacher` is the address (base URL) of a server, or a word without one, which stays.
    """
    parts = urlsplit(teacher)
    if not parts.netloc:
        return teacher
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
