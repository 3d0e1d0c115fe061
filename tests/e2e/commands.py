"""Commands that run until they are stopped, as a user runs them, and what they say meanwhile."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.project import Project, make_project

SECONDS = 300.0


@dataclass
class Command:
    """A command at work; standard output and error together."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _is_over: bool = False

    def listen(self) -> None:
        """Take down every line until the command closes its output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Until so many lines hold this text."""

        def is_said() -> bool:
            return sum(text in line for line in self.lines) >= times

        with self._news:
            self._news.wait_for(lambda: self._is_over or is_said(), SECONDS)
        assert is_said(), f"{text!r} is not said:\n{self.said}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(how)
        return self.process.wait(SECONDS)


@contextmanager
def running(project: Project, module: str, *arguments: object) -> Iterator[Command]:
    """A command in the background; ended hard if the test has not ended it."""
    command = Command(project.start(module, *arguments))
    listener = threading.Thread(target=command.listen)
    listener.start()
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.stop()
        listener.join()
        assert command.process.stdout is not None
        command.process.stdout.close()


def wait_until(is_so: Callable[[], object]) -> None:
    """Until something is so, asked again and again."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.2)


def project_with(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> Project:
    """A project whose recipe differs in some settings, by section."""
    project = make_project(folder)
    path = project.recipe / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        recipe[section] |= values
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return project
