"""Servers that tests in several folders share."""

from __future__ import annotations

from hypothesis import settings

from tests.label_studio import studio_server  # noqa: F401

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
