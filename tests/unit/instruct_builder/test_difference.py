"""What `diff` says of two sets: everything adds up, and each change has its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.errors import ConfigError
from core.ids import content_id
from core.records import Instruction, Message, ReviewLevel, Split
from instruct_builder import difference
from instruct_builder.__main__ import app
from instruct_builder.difference import Difference, as_text, compare
from instruct_builder.manifest import MANIFEST
from instruct_builder.pairing import Fate
from instruct_builder.removal import remove_images
from instruct_builder.shards import Placed, ShardSet, rows_table, write_shards
from tests.unit.instruct_builder.exports import with_general_row
from tests.unit.instruct_builder.specimens import make_facts, make_pairs, place_all

PLACED = [replace(item, split=Split.TRAIN) for item in place_all(make_pairs(8))]


def write(folder: Path, placed: Sequence[Placed], **facts: Any) -> Path:
    order = list(Split)
    ordered = sorted(placed, key=lambda item: order.index(item.split))
    write_shards(
        folder,
        [
            rows_table([item for item in ordered if item.split is split])
            for split in Split
            if any(item.split is split for item in ordered)
        ],
        [(item.image, item.split) for item in ordered],
        make_facts(**facts),
        rows_per_shard=40,
    )
    return folder


def counts(found: Difference) -> dict[str, dict[str, int]]:
    """By fate and reason, without what did not occur; checks that all adds up."""
    rows = {fate: found.rows(fate) for fate in Fate}
    both = rows[Fate.UNCHANGED] + rows[Fate.CHANGED]
    assert both + rows[Fate.REMOVED] == found.old_rows
    assert both + rows[Fate.ADDED] == found.new_rows
    for fate in (Fate.CHANGED, Fate.REMOVED, Fate.ADDED):
        for reason, number in found.counts[fate].items():
            examples = found.examples[fate][reason]
            assert len(examples) == min(number, 3)
            assert all((old is None) == (fate is Fate.ADDED) for old, _ in examples)
            assert all((new is None) == (fate is Fate.REMOVED) for _, new in examples)
    return {
        fate.value: dict(reasons)
        for fate, reasons in found.counts.items()
        if reasons and fate is not Fate.UNCHANGED
    }


def change(item: Placed, place: int, **changes: Any) -> Placed:
    """The same with one instruction changed, and so with another id."""
    rows = list(item.instructions)
    rows[place] = rename(replace(rows[place], **changes))
    return replace(item, instructions=rows)


def rename(row: Instruction) -> Instruction:
    talk = [(message.role, message.content) for message in row.messages]
    return replace(row, instruction_id=content_id("ins", row.chain_id, row.template_id, talk))


def with_chain(item: Placed, chain_id: str) -> Placed:
    rows = [rename(replace(row, chain_id=chain_id)) for row in item.instructions]
    return replace(item, instructions=rows)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("diff") / "old", PLACED)


def test_a_set_does_not_differ_from_itself(old: Path) -> None:
    found = compare(old, old)
    assert counts(found) == {}
    assert found.facts == {}
    assert found.rows(Fate.UNCHANGED) == found.old_rows > 0


def test_columns_that_changed_are_named_together(old: Path, tmp_path: Path) -> None:
    first, second, *rest = PLACED
    first = replace(first, split=Split.TEST)
    second = replace(second, split=Split.VAL, review_level=ReviewLevel.AGREED)
    found = compare(old, write(tmp_path / "new", [first, second, *rest]))
    assert counts(found) == {
        "changed": {
            "split changed": len(first.instructions),
            "split, review level changed": len(second.instructions),
        }
    }
    ((one, other), *_) = found.examples[Fate.CHANGED]["split changed"]
    assert one == other


def test_other_words_another_pattern_another_chain(old: Path, tmp_path: Path) -> None:
    first, second, third, *rest = PLACED
    said = (Message(role="user", content="Why?"), Message(role="assistant", content="So."))
    first = change(first, 0, messages=said)
    second = change(second, 1, messages=said, template_id="verdict_what/q99/a99")
    third = with_chain(third, "chain-newer")
    found = compare(old, write(tmp_path / "new", [first, second, third, *rest]))
    assert counts(found) == {
        "changed": {
            "wording changed": 1,
            "pattern changed": 1,
            "chain changed": len(third.instructions),
        }
    }


def test_rows_that_come_and_go_with_their_image(old: Path, tmp_path: Path) -> None:
    first, second, *rest = PLACED
    (more,) = [replace(item, split=Split.TRAIN) for item in place_all(make_pairs(9))[8:]]
    new = write(
        tmp_path / "new", [more, *rest], tombstones=(first.image.image_id, "img-somebody-elses")
    )
    assert counts(compare(old, new)) == {
        "removed": {
            "image withdrawn": len(first.instructions),
            "image left out": len(second.instructions),
        },
        "added": {"image added": len(more.instructions)},
    }


def test_rows_of_an_image_that_stays(old: Path, tmp_path: Path) -> None:
    first, second, *rest = PLACED
    kept = replace(first, instructions=first.instructions[1:])
    other = with_chain(second, "chain-newer")
    other = replace(other, instructions=other.instructions[1:])
    new = write(tmp_path / "new", [kept, other, *rest])
    assert counts(compare(old, new)) == {
        "changed": {"chain changed": len(second.instructions) - 1},
        "removed": {"not asked any more": 1, "chain changed": 1},
    }
    assert counts(compare(new, old)) == {
        "changed": {"chain changed": len(second.instructions) - 1},
        "added": {"asked anew": 1, "chain changed": 1},
    }


def test_a_takedown_is_seen_as_one(old: Path, tmp_path: Path) -> None:
    new = write(tmp_path / "new", PLACED)
    removed = remove_images(new, [PLACED[2].image.image_id])
    assert counts(compare(old, new)) == {"removed": {"image withdrawn": removed.rows}}


def test_rows_about_no_image_are_told_apart_by_their_id(old: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    with_general_row(mixed, ShardSet.open(old))
    assert counts(compare(old, mixed)) == {"added": {"row without an image": 1}}
    assert counts(compare(mixed, old)) == {"removed": {"row without an image": 1}}
    assert counts(compare(mixed, mixed)) == {}


def test_what_the_sets_were_made_from_is_compared(old: Path, tmp_path: Path) -> None:
    found = compare(old, write(tmp_path / "new", PLACED, seed=9))
    assert found.facts == {"seed": ("1", "9")}
    assert "seed: 1 -> 9" in "\n".join(as_text(found))


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.data())
def test_everything_adds_up_and_the_order_of_rows_is_no_difference(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """In few parts or in many: each image is compared with itself alone."""
    folder = tmp_path_factory.mktemp("any")
    drawn = data.draw(st.lists(st.sampled_from(range(8)), min_size=1, max_size=6, unique=True))
    placed = [PLACED[place] for place in drawn]
    changed = [
        data.draw(
            st.sampled_from(
                [
                    item,
                    replace(item, split=Split.TEST),
                    replace(item, instructions=item.instructions[::2]),
                    with_chain(item, f"chain-newer-{number}"),
                    change(item, 0, template_id="other/q01/a01"),
                ]
            )
        )
        for number, item in enumerate(placed)
    ]
    old = write(folder / "old", PLACED)
    new = write(folder / "new", data.draw(st.permutations(changed)))
    whole = counts(compare(old, new))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "ROWS_AT_ONCE", data.draw(st.integers(1, 60)))
        assert counts(compare(old, new)) == whole
        assert counts(compare(new, new)) == {}


def test_names_of_others_are_text(old: Path, tmp_path: Path) -> None:
    first, *rest = PLACED
    instruction = replace(first.instructions[0], instruction_id="ins-\x1b[2J")
    hostile = replace(first, instructions=[instruction, *first.instructions[1:]])
    text = "\n".join(as_text(compare(old, write(tmp_path / "new", [hostile, *rest]))))
    assert "\x1b" not in text
    assert r"ins-\u001b[2J" in text


def test_the_command_prints_both_ways(old: Path, tmp_path: Path) -> None:
    new = write(tmp_path / "new", PLACED[1:])
    shown = CliRunner().invoke(app, ["diff", str(old), str(new)])
    assert shown.exit_code == 0, shown.output
    gone = len(PLACED[0].instructions)
    assert f"\nremoved: {gone}\n  image left out: {gone} (ins-" in shown.output
    told = json.loads(CliRunner().invoke(app, ["diff", str(old), str(new), "--json"]).output)
    assert told["counts"]["removed"] == {"image left out": gone}


def test_a_folder_that_is_no_set_is_named(old: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is no shard set"):
        compare(old, tmp_path / "nowhere")
    assert (old / MANIFEST).exists()
