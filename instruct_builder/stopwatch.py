"""How long the parts of a build take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """What a part of the work took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """of this process and of those that it started and that have ended"""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


class Stopwatch:
    """Adds up what each named part takes."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done inside under a name."""
        seconds, cpu = time.perf_counter(), sum(os.times()[:4])
        try:
            yield
        finally:
            spent = Spent(time.perf_counter() - seconds, sum(os.times()[:4]) - cpu)
            self.spent[name] = self.spent.get(name, Spent()) + spent
