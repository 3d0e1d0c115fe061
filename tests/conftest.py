"""Servers that tests in several folders share."""

from __future__ import annotations

from tests.label_studio import studio_server  # noqa: F401
