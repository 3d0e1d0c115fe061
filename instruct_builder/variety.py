"""Lengths and the use of patterns: what a reader of many rows would tire of."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from instruct_builder.checks import Figures

LEAST_ROWS: Final = 200
"""of fewer rows a share says nothing"""
QUANTILES: Final = (5, 50, 95)
LONGEST: Final = 5_000
"""words; longer texts count as so long"""

Counts = npt.NDArray[np.int64]


class Variety:
    """Words in questions and answers, and how much of the rows the most used question takes."""

    name = "variety"
    says = "questions and answers vary in length and in their patterns"

    def __init__(self, *, most_share: float) -> None:
        """`most_share`: greatest share of one question pattern among all rows, 0..1."""
        self._most_share = most_share
        self._lengths = {
            role: np.zeros(LONGEST + 1, dtype=np.int64) for role in ("user", "assistant")
        }
        self._uses: Counter[str] = Counter()

    def see_rows(self, table: pa.Table) -> None:
        """Count words by role, and rows by the pattern of their first question."""
        turns = table.column("messages").combine_chunks().flatten()
        roles, contents = pc.struct_field(turns, "role"), pc.struct_field(turns, "content")
        words = pc.list_value_length(pc.utf8_split_whitespace(contents)).to_numpy()
        for role in self._lengths:
            said = words[pc.equal(roles, role).to_numpy(zero_copy_only=False)]
            self._lengths[role] += np.bincount(np.minimum(said, LONGEST), minlength=LONGEST + 1)
        for pair in pc.value_counts(question_patterns(table)).to_pylist():
            self._uses[pair["values"]] += pair["counts"]

    def figures(self) -> Figures:
        """Quantiles of the words, and the most and the least used question patterns."""
        figures: Figures = {}
        for role, counts in self._lengths.items():
            what = "question" if role == "user" else "answer"
            for quantile in QUANTILES:
                figures[f"{what}_words_{quantile}"] = _quantile(counts, quantile)
            figures[f"{what}_words_most"] = int(np.flatnonzero(counts).max(initial=0))
        (most, used), *_ = self._uses.most_common(1) or [("none", 0)]
        least = min(self._uses.values(), default=0)
        return figures | {
            "question_patterns": len(self._uses),
            "most_used": most,
            "share_of_most_used": self._share(used),
            "share_of_least_used": self._share(least),
            "threshold": self._most_share,
        }

    def failures(self) -> list[str]:
        """The pattern that is used too much, and what to do about it."""
        (most, used), *_ = self._uses.most_common(1) or [("none", 0)]
        if self._uses.total() < LEAST_ROWS or self._share(used) <= self._most_share:
            return []
        return [
            f"question pattern {most} takes {self._share(used):.3f} of the rows, threshold "
            f"{self._most_share:g}; write more patterns for its form, or give the form fewer rows"
        ]

    def _share(self, number: int) -> float:
        return round(number / max(1, self._uses.total()), 5)


def question_patterns(table: pa.Table) -> pa.Array:
    """Form and number of the first question of each row: its template id without the answer."""
    ids = table.column("template_id").combine_chunks()
    return pc.replace_substring_regex(ids, r"/a\d+.*$", "")


def _quantile(counts: Counts, percent: int) -> int:
    """The least number of words that so many of 100 texts do not exceed."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] * percent / 100))
