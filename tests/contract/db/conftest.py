"""The databases that these tests run on."""

from __future__ import annotations

from tests.databases import (  # noqa: F401
    bare_settings,
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
