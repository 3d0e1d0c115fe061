from __future__ import annotations

from typing import Any

import pytest

from benchmarks.contest import Standing
from benchmarks.train_tree import PLAIN, TREES, TRL, Run, check_equal, table
from core.errors import PermanentError


def stand(contender: Any, **changes: Any) -> Standing[Run]:
    values: dict[str, Any] = {
        "seconds": 2.0, "rows": 16, "tokens": [900, 900], "answer_tokens": [300, 310],
        "losses": [6.5, 6.1], "mfu": None, "cuda_bytes": None, "peak_bytes": 2**30,
    }  # fmt: skip
    return Standing(contender, runs=[Run(**{**values, **changes})])


def test_what_did_not_learn_the_same_is_not_compared() -> None:
    check_equal([stand(TREES), stand(PLAIN, losses=[6.5001, 6.1001])], 1e-3)
    with pytest.raises(PermanentError, match=r"TRL SFTTrainer learnt from \[300, 300\] tokens"):
        check_equal([stand(TREES), stand(TRL, answer_tokens=[300, 300])], 1e-3)
    with pytest.raises(PermanentError, match=r"had the losses .*nothing to compare"):
        check_equal([stand(TREES), stand(TRL, losses=[6.5, 6.2])], 1e-3)


def test_the_table_sets_trees_beside_each_other_way() -> None:
    trees, trl = stand(TREES), stand(TRL, seconds=13.0, peak_bytes=2**31)
    failed: Standing[Run] = Standing(PLAIN, failure="not installed: no space left")
    header, *lines = table([trees, failed, trl])
    assert header.split() == ["instr/s", "MiB", "MFU", "trees", "are", "faster", "smaller"]
    assert lines[0].split()[-8:] == ["trees", "8.00", "1024", "-", "1.0", "x", "1.00", "x"]
    assert lines[1].endswith("not installed: no space left")
    assert lines[2].split()[-7:] == ["1.23", "2048", "-", "6.5", "x", "2.00", "x"]
