"""Text that nobody has checked, as it may be shown on a terminal."""

from __future__ import annotations

import re
from typing import Final

UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""control characters, what turns the direction of writing round, and halves of characters"""


def printable(text: str) -> str:
    r"""Text on one line of output: what would act on a terminal stands as `\u001b`."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def printable_lines(text: str) -> list[str]:
    """Text on lines of output as it breaks them itself."""
    return [printable(line) for line in re.split(r"\r\n|\r|\n", text)]
