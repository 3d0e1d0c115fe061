"""Near-duplicates: a check that the rows about one image differ, and that images differ.

Signatures and candidates are those of `rensa` (MinHash with banding; A. Z. Broder, "On the
resemblance and containment of documents", 1997). Texts are compared as sets of three words in a
row. Two texts count as near when 16 of their 256 minima agree in one of 16 bands, which happens to
96 of 100 pairs that share nine tenths of these sets, to 37 that share eight, and to 5 that share
seven.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from instruct_builder.checks import Figures
from instruct_builder.turns import codes_of, conversations, last_answers

PERMUTATIONS: Final = 256
BANDS: Final = 16
SEED: Final = 1
LEAST_ROWS: Final = 200
"""of fewer rows, or images, a share says nothing"""
_STEPS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class NearDuplicates:
    """Shares of rows that nearly repeat another row about their image, and of alike images.

    Images are alike when the longest answer about one is nearly the longest about another.
    """

    name = "near_duplicates"
    says = "few rows nearly repeat another about their image, and few images are answered alike"

    def __init__(self, *, most_rows: float, most_images: float) -> None:
        """Greatest shares, 0..1, of the rows and of the images."""
        self._most_rows = most_rows
        self._most_images = most_images
        self._rows = 0
        self._near = 0
        self._first = ""
        self._longest: list[pa.Array] = []

    def see_rows(self, table: pa.Table) -> None:
        """Compare the rows of each image with one another; the table holds whole images."""
        if not table.num_rows:
            return
        images = _numbered_runs(table.column("image_id"))
        flags = find_near(conversations(table), apart=images)
        if flags.any() and not self._first:
            self._first = table.column("instruction_id")[int(flags.argmax())].as_py()
        self._rows += table.num_rows
        self._near += int(flags.sum())
        self._longest.append(_longest_of_each(last_answers(table), images))

    def figures(self) -> Figures:
        """Numbers and shares, with the shares that are allowed."""
        figures: Figures = {
            "rows": self._rows,
            "near_rows": self._near,
            "share_of_rows": _share(self._near, self._rows),
            "threshold_rows": self._most_rows,
            "images": len(self._answers),
            "alike_images": self._alike,
            "share_of_images": _share(self._alike, len(self._answers)),
            "threshold_images": self._most_images,
        }
        few = [f"{n} {what}" for what, n in self._numbers if n < LEAST_ROWS]
        return figures | ({"too_few": ", ".join(few)} if few else {})

    @property
    def _numbers(self) -> tuple[tuple[str, int], ...]:
        return ("rows", self._rows), ("images", len(self._answers))

    @cached_property
    def _answers(self) -> pa.Array:
        return pa.concat_arrays(self._longest) if self._longest else pa.array([], pa.string())

    @cached_property
    def _alike(self) -> int:
        return int(find_near(self._answers).sum())

    def failures(self) -> list[str]:
        """Which share is above what is allowed, and what to do about it."""
        failures = []
        rows, images = _share(self._near, self._rows), _share(self._alike, len(self._answers))
        if self._rows >= LEAST_ROWS and rows > self._most_rows:
            failures.append(
                f"{rows:.3f} of the rows nearly repeat another about their image, threshold "
                f"{self._most_rows:g}, such as instruction {self._first}; ask for fewer rows, or "
                "write answer patterns that say less of the evidence twice"
            )
        if len(self._answers) >= LEAST_ROWS and images > self._most_images:
            failures.append(
                f"the longest answers about {images:.3f} of the images are nearly the same, "
                f"threshold {self._most_images:g}; the teacher says the same of many images"
            )
        return failures


def find_near(texts: pa.Array, *, apart: Numbers | None = None) -> Flags:
    """For each text whether another one is near; with `apart`, one that has the same number."""
    from rensa import RMinHash, RMinHashLSH

    shingles, ends = _shingle(texts)
    if apart is not None:
        shingles ^= np.repeat(apart.astype(np.uint64) * _STEPS[2], np.diff(ends))
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles, ends.astype(np.uint64), PERMUTATIONS, SEED
    )
    index = RMinHashLSH(threshold=0.9, num_perm=PERMUTATIONS, num_bands=BANDS)
    return np.array(index.query_duplicate_flags_matrix_one_shot(digests), dtype=bool)


def _shingle(texts: pa.Array) -> tuple[Hashes, Numbers]:
    """Hashes of three words in a row, text after text, and where each text ends in them.

    A text has as many as it has words: past its end stands nothing.
    """
    from rensa import RMinHash

    words = pc.utf8_split_whitespace(pc.utf8_lower(texts))
    ends = words.offsets.to_numpy().astype(np.int64)
    spelt = words.flatten().dictionary_encode()
    (known,) = RMinHash.hash_token_sets([spelt.dictionary.to_pylist()])
    hashes = np.array(known, dtype=np.uint64)[spelt.indices.to_numpy()]
    place = np.arange(len(hashes))
    left = np.repeat(ends[1:], np.diff(ends)) - place
    shingles = hashes.copy()
    for step in (1, 2):
        inside = left > step
        shingles[inside] += hashes[place[inside] + step] * _STEPS[step - 1]
    return shingles, ends


def _numbered_runs(column: Any) -> Numbers:
    """For each row the number of its run of equal values, from 0."""
    codes = codes_of(column)
    return np.concatenate([[0], np.cumsum(codes[1:] != codes[:-1])])


def _longest_of_each(texts: pa.Array, groups: Numbers) -> pa.Array:
    """The longest text of each group of neighbours."""
    lengths = pc.utf8_length(texts).to_numpy().astype(np.int64)
    order = np.lexsort((-lengths, groups))
    firsts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return texts.take(pa.array(order[firsts]))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
