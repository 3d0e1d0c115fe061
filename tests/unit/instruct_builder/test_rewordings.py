"""The table of rewordings, and chains whose texts are swapped for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError
from core.ids import sha256_text
from core.records import ReasoningChain
from instruct_builder.rewordings import (
    Rewording,
    Rewordings,
    read_rewordings,
    write_rewordings,
)
from tests.unit.instruct_builder.specimens import make_pair

FIRST, SECOND, END = "Edges are soft.", "Grain is missing.", "So it was generated."


def reword(chain_id: str, original: str, variant: int, text: str) -> Rewording:
    return Rewording(
        chain_id=chain_id,
        text_sha256=sha256_text(original),
        variant=variant,
        text=text,
        model="a model",
    )


def chain_of(number: int) -> ReasoningChain:
    chain, _ = make_pair(f"image {number}", categories=["edge", "texture"][: number % 3])
    findings = tuple(
        replace(finding, evidence=text)
        for finding, text in zip(chain.reasoning.findings, (FIRST, SECOND), strict=False)
    )
    conclusion = END if number % 2 else ""
    return replace(
        chain,
        chain_id=f"chain-{number}",
        reasoning=replace(chain.reasoning, findings=findings, conclusion=conclusion),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "rewordings.parquet"


def test_what_was_written_is_read_in_order(path: Path) -> None:
    later, earlier = reword("chain-2", FIRST, 2, "b"), reword("chain-2", FIRST, 1, "a")
    write_rewordings([later, earlier, reword("chain-1", END, 1, "c")], path)
    assert read_rewordings(path).column("text").to_pylist() == ["c", "a", "b"]
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_the_same_rewordings_give_the_same_bytes(path: Path) -> None:
    write_rewordings([reword("chain-1", END, 1, "c"), reword("chain-1", FIRST, 1, "a")], path)
    before = path.read_bytes()
    write_rewordings([reword("chain-1", FIRST, 1, "a"), reword("chain-1", END, 1, "c")], path)
    assert path.read_bytes() == before


def test_another_file_is_refused_by_name(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewordings\.parquet: cannot be read"):
        read_rewordings(path)
    path.parent.mkdir()
    path.write_bytes(b"no Parquet")
    with pytest.raises(ConfigError, match=r"rewordings\.parquet: cannot be read"):
        read_rewordings(path)
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(ConfigError, match=r"no table of rewordings.*instruct_builder rewrite"):
        read_rewordings(path)


def test_texts_are_swapped_where_there_is_a_rewording_and_nothing_else_is(path: Path) -> None:
    write_rewordings(
        [
            reword(f"chain-{n}", text, variant, f"{text[:-1]} indeed {variant}.")
            for n in range(600)
            for text in (FIRST, END)
            for variant in (1, 2)
        ],
        path,
    )
    rewordings = Rewordings.read(path)
    drawn, ends = [], set()
    for number in range(600):
        before = chain_of(number)
        after, models = rewordings.apply(before, seed=1)
        said = [finding.evidence for finding in after.reasoning.findings]
        assert said[1:] == [SECOND][: number % 3 - 1 if number % 3 else 0]
        drawn += said[:1]
        ends.add(after.reasoning.conclusion)
        changed = after != before
        assert models == ({"a model"} if changed else set())
        assert replace(after, reasoning=before.reasoning) == before
    variants = {FIRST, "Edges are soft indeed 1.", "Edges are soft indeed 2."}
    assert set(drawn) == variants
    assert all(100 < drawn.count(text) < 170 for text in variants)
    assert ends > {"", END}


def test_the_seed_alone_decides_which_text_is_taken(path: Path) -> None:
    write_rewordings([reword(f"chain-{n}", FIRST, 1, "Other.") for n in range(50)], path)
    rewordings = Rewordings.read(path)
    one = [rewordings.apply(chain_of(n), seed=1) for n in range(50)]
    assert one == [rewordings.apply(chain_of(n), seed=1) for n in range(50)]
    assert one != [rewordings.apply(chain_of(n), seed=2) for n in range(50)]


def test_a_text_that_was_changed_since_stays_as_it_is(path: Path) -> None:
    write_rewordings([reword("chain-1", FIRST, n, f"Other {n}.") for n in range(1, 9)], path)
    chain = chain_of(1)
    finding = replace(chain.reasoning.findings[0], evidence="An expert wrote this.")
    changed = replace(chain, reasoning=replace(chain.reasoning, findings=(finding,)))
    assert Rewordings.read(path).apply(changed, seed=1) == (changed, frozenset())
