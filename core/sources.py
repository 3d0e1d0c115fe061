"""Which sources a command works on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from core.errors import ConfigError

DEMO = "demo"
"""source of the simulated images that fill an empty default database"""


def choose_sources(present: Collection[str], asked: str | None) -> Sequence[str]:
    """The sources to work on: the one asked for, else all but the demo, else the demo."""
    if asked is not None and asked not in present:
        known = ", ".join(sorted(present)) or "none"
        raise ConfigError(f"there is no source {asked!r}; ingested so far: {known}")
    if asked is not None:
        return [asked]
    return sorted(name for name in present if name != DEMO) or sorted(present)
