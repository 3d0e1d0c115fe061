"""Orders by hash: quick, and the same where keys are equal."""

from __future__ import annotations

import numpy as np
import pytest

from instruct_builder.hashing import by_key, ordered


@pytest.mark.parametrize("different", [3, 2**16, 2**63])
def test_equal_keys_stay_in_their_order(different: int) -> None:
    keys = np.random.default_rng(1).integers(0, different, 10_000, dtype=np.uint64)
    assert np.array_equal(by_key(keys), np.argsort(keys, kind="stable"))


@pytest.mark.parametrize("groups", [1, 40, 300_000])
def test_groups_are_ordered_by_their_keys(groups: int) -> None:
    draw = np.random.default_rng(2)
    group = draw.integers(0, groups, 10_000)
    keys = draw.integers(0, 2_000, 10_000, dtype=np.uint64)
    assert np.array_equal(ordered(group, keys), np.lexsort((keys, group)))
    assert np.array_equal(ordered(group), np.argsort(group, kind="stable"))


def test_no_rows_have_no_order() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert len(ordered(nothing)) == len(by_key(nothing.astype(np.uint64))) == 0
