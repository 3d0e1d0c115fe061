"""Text of others on a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.printable import printable, printable_lines


def test_what_would_act_on_a_terminal_is_spelled_out() -> None:
    assert printable("a\x1b[2Jb\r\x07\x9b") == r"a\u001b[2Jb\u000d\u0007\u009b"
    assert printable("abc\u202edcb\u2066") == r"abc\u202edcb\u2066"
    assert printable("plain 光 é 🙂") == "plain 光 é 🙂"


def test_lines_are_broken_where_the_text_breaks_them() -> None:
    assert printable_lines("one\r\ntwo\n\nthree\x0b") == ["one", "two", "", r"three\u000b"]


@given(st.text())
def test_it_is_one_line_that_can_be_written_anywhere(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
