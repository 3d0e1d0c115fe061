"""Demonstrations are the smallest set of exemplars that shows what was asked for."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, load_recipe
from core.records import Authenticity, Exemplar, Source
from core.settings import load_settings
from db.engine import open_database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger, drafts
from generation.campaign import prepare
from generation.desk import Desk, Seat
from generation.draft import draft_due
from generation.exemplars import Chosen, choose_exemplars
from imaging.store import ImageStore
from teacher.client import Teacher
from teacher.loopback import serve
from teacher.prices import FREE
from teacher.rehearsal import load_rehearsal
from tests.databases import sqlite_template  # noqa: F401
from tests.unit.records import make_image
from tests.unit.teacher.scripted import draw_jpeg

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
CATEGORIES = "abcde"


def make_exemplar(name: str, label: Authenticity, categories: str = "a") -> Exemplar:
    return Exemplar(
        exemplar_id=name, label=label, categories=tuple(categories), description=f"It is {label}."
    )


def ids(chosen: Chosen) -> list[str]:
    return [exemplar.exemplar_id for exemplar in chosen.exemplars]


some_categories = st.sets(st.sampled_from(CATEGORIES), min_size=1).map(sorted).map("".join)


@st.composite
def exemplar_sets(draw: st.DrawFn) -> list[Exemplar]:
    """At most eight exemplars in any order, a fake and a real one among them."""
    labels = [FAKE, REAL, *draw(st.lists(st.sampled_from(Authenticity), max_size=6))]
    made = [make_exemplar(f"e{i}", v, draw(some_categories)) for i, v in enumerate(labels)]
    return draw(st.permutations(made))


def try_every_set(asked: set[str], exemplars: Sequence[Exemplar]) -> list[str]:
    """The best by trying all sets: few exemplars, then much overlap, then the first ids."""
    covered = asked.intersection(*[{c for e in exemplars for c in e.categories}])
    covers = [
        tried
        for size in range(len(exemplars) + 1)
        for tried in combinations(sorted(exemplars, key=lambda e: e.exemplar_id), size)
        if covered <= {c for e in tried for c in e.categories}
        and {e.label for e in tried} == set(Authenticity)
    ]
    best = min(
        covers,
        key=lambda tried: (
            len(tried),
            -sum(len(covered & set(e.categories)) for e in tried),
            [e.exemplar_id for e in tried],
        ),
    )
    return [exemplar.exemplar_id for exemplar in best]


@given(exemplar_sets(), st.sets(st.sampled_from(CATEGORIES + "z")))
def test_no_other_set_is_better(exemplars: list[Exemplar], asked: set[str]) -> None:
    assert ids(choose_exemplars(asked, exemplars)) == try_every_set(asked, exemplars)


@given(exemplar_sets(), st.sets(st.sampled_from(CATEGORIES + "z")))
def test_what_no_exemplar_shows_is_named_and_the_rest_is_shown(
    exemplars: list[Exemplar], asked: set[str]
) -> None:
    chosen = choose_exemplars(asked, exemplars)
    shown = {c for exemplar in chosen.exemplars for c in exemplar.categories}
    assert set(chosen.uncovered) == asked - {c for e in exemplars for c in e.categories}
    assert asked - shown == set(chosen.uncovered)


@given(exemplar_sets(), st.randoms())
def test_the_order_of_what_is_given_does_not_matter(
    exemplars: list[Exemplar], chance: random.Random
) -> None:
    shuffled = chance.sample(exemplars, len(exemplars))
    asked = list(CATEGORIES)
    assert choose_exemplars(asked[::-1], shuffled) == choose_exemplars(asked, exemplars)


def test_without_categories_the_first_of_either_label_is_chosen() -> None:
    exemplars = [make_exemplar(*pair) for pair in [("d", FAKE), ("c", REAL), ("b", FAKE)]]
    assert ids(choose_exemplars([], exemplars)) == ["b", "c"]


def test_greed_would_take_three_where_two_are_enough() -> None:
    exemplars = [
        make_exemplar("greedy", FAKE, "bcde"),
        make_exemplar("left", FAKE, "abc"),
        make_exemplar("right", REAL, "def"),
        make_exemplar("small", REAL, "a"),
    ]
    assert ids(choose_exemplars("abcdef", exemplars)) == ["left", "right"]


def test_both_labels_are_shown_even_if_one_exemplar_would_do() -> None:
    exemplars = [make_exemplar("whole", FAKE, "abc"), make_exemplar("part", REAL, "d")]
    assert ids(choose_exemplars("abc", exemplars)) == ["part", "whole"]


def test_without_exemplars_nothing_is_chosen() -> None:
    assert choose_exemplars(["b", "a"], []) == Chosen(uncovered=("a", "b"))


@pytest.mark.parametrize("label", Authenticity)
def test_exemplars_of_one_label_are_refused(label: Authenticity) -> None:
    with pytest.raises(ConfigError, match="at least one fake and one real"):
        choose_exemplars("a", [make_exemplar("only", label)])


def test_a_category_named_like_a_label_is_no_label() -> None:
    exemplars = [
        Exemplar(exemplar_id=name, label=label, categories=("real", "fake"), description="x")
        for name, label in (("a", FAKE), ("b", FAKE), ("c", REAL))
    ]
    assert ids(choose_exemplars(["real"], exemplars)) == ["a", "c"]


@pytest.mark.parametrize("per_exemplar", [1, 2, 3, 6])
def test_a_hundred_exemplars_and_fifteen_categories_are_solved_exactly(per_exemplar: int) -> None:
    """By any other cover: the exact one is never larger than what greed finds."""
    chance = random.Random(per_exemplar)
    names = "abcdefghijklmno"
    exemplars = [
        make_exemplar(f"e{i:03}", (FAKE, REAL)[i % 2], "".join(chance.sample(names, per_exemplar)))
        for i in range(100)
    ]
    chosen = choose_exemplars(names, exemplars)
    assert {e.label for e in chosen.exemplars} == set(Authenticity)
    assert set(names) <= {c for e in chosen.exemplars for c in e.categories}
    assert -(-len(names) // per_exemplar) <= len(chosen.exemplars) <= count_greedily(exemplars)


def count_greedily(exemplars: Sequence[Exemplar]) -> int:
    """The size of the cover that always takes what helps most."""
    unmet = {c for e in exemplars for c in e.categories} | set(Authenticity)
    count = 0
    while unmet:
        unmet -= max((unmet & {*e.categories, e.label} for e in exemplars), key=len)
        count += 1
    return count


VANILLA_ARM = "    - {name: plain, teacher: rehearsal, model: rehearsal, mode: vanilla}\n"


def test_drafts_say_how_many_demonstrations_were_shown(
    tmp_path: Path,
    sqlite_template: Path,  # noqa: F811
) -> None:
    folder = shutil.copytree(DEFAULT_RECIPE, tmp_path / "recipe")
    settings = folder / "recipe.yaml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("  arms:\n", f"  arms:\n{VANILLA_ARM}"), encoding="utf-8")
    recipe = load_recipe(folder)
    store = ImageStore(tmp_path / "images")
    image = make_image(path=store.add(draw_jpeg(), ".jpg"))
    copied = shutil.copy(sqlite_template, tmp_path / "test.db")
    database = open_database(load_settings(database_url=f"sqlite:///{copied}"))
    with database.write() as session:
        save_source(session, Source(name=image.source, licence="CC0-1.0"))
        save_images(session, [image])
    campaign_id = prepare(database, store, recipe, source=image.source).campaign_id
    with serve(load_rehearsal(folder)) as base_url, Teacher(base_url) as teacher:
        ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
        desk = Desk(
            database=database,
            store=store,
            recipe=recipe,
            campaign_id=campaign_id,
            seats={
                arm.name: Seat(arm=arm, teacher=teacher, ledger=ledger, price=FREE)
                for arm in recipe.arms
            },
            worker="worker",
        )
        assert draft_due(desk, list(desk.seats), seconds=60).drafted == 2
    with database.read() as session:
        shown = {
            arm.mode: [d.demonstrations for d in drafts(session, campaign_id, arm.name)]
            for arm in recipe.arms
        }
    database.dispose()
    assert shown == {"acoti": [2], "vanilla": [0]}
