"""The scripted server, running."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.unit.teacher.scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()
