"""The answers of an annotation, control by control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import DataError

Result = dict[str, Any]


class Answers:
    """What was answered in each control of a form."""

    def __init__(self, results: Sequence[Any]) -> None:
        self._by_name: dict[str, list[Result]] = {}
        for result in results:
            if isinstance(result, Mapping) and "from_name" in result:  # relations have none
                self._by_name.setdefault(str(result["from_name"]), []).append(dict(result))

    def results(self, name: str) -> list[Result]:
        """As Label Studio writes them."""
        return self._by_name.get(name, [])

    def choices(self, name: str) -> list[str]:
        """All choices made in a control."""
        return [str(item) for each in self.results(name) for item in _value(each, "choices")]

    def choice(self, name: str) -> str | None:
        """The one choice made in a control; None when nothing was chosen."""
        chosen = self.choices(name)
        if len(chosen) > 1:
            raise DataError(f"control {name} holds more than one answer")
        return chosen[0] if chosen else None

    def text(self, name: str) -> str:
        """What stands in a text box, exactly; several entries become lines."""
        lines = [str(line) for each in self.results(name) for line in _value(each, "text")]
        return "\n".join(lines)


def _value(result: Result, kind: str) -> Sequence[Any]:
    value = result.get("value", {}).get(kind, [])
    return [value] if isinstance(value, str) else value
