"""Redis servers of a test's own, which it may kill, empty and start again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.brokers import free_port, skip_or_fail, wait_for_port


class RedisServer:
    """A server on a free port that keeps nothing on disk but what `SAVE` writes there."""

    def __init__(self, folder: Path, *options: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            skip_or_fail("redis-server", "apt-get install redis-server")
        self.port = free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._command = [str(binary), *own, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_for_port(self.port)

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None
