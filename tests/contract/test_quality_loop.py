"""Disputes, rulings and gold items on a real Label Studio, and the figures that come of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.chains import chain_drafts
from annotation.pull import pull
from annotation.standing import standing
from core.gold import GoldScore
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.records import (
    AnnotationFate,
    Confidence,
    ReviewLevel,
    TaskKind,
    TraceOutcome,
)
from db.chains import newest_chains
from db.quality import measure_quality
from db.reviews import corrections
from tests.label_studio import (
    Account,
    Server,
    Workplace,
    answer,
    api,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding

ACCEPTED, EDITED, REJECTED, ADDED = TraceOutcome
COUNTED = AnnotationFate.COUNTED
FINDINGS = [make_finding("texture"), make_finding("edge")]
WORDS = "The chair is made of one square that comes back again and again."


def with_gold(share: float, **changes: Any) -> Recipe:
    recipe = load_recipe()
    gold = recipe.settings.review.gold.model_copy(update={"share": share})
    review = recipe.settings.review.model_copy(update={"gold": gold})
    settings = recipe.settings.model_copy(update={"review": review})
    return recipe.model_copy(update={"settings": settings, **changes})


@pytest.fixture(scope="module")
def experts(studio_server: Server) -> tuple[Account, Account, Account]:
    return sign_up(studio_server), sign_up(studio_server), sign_up(studio_server)


@pytest.fixture
def workplace(studio_server: Server, tmp_path: Path) -> Iterator[Workplace]:
    """Three drafts of two findings each, pushed."""
    made = make_workplace(tmp_path, studio_server, *[FINDINGS] * 3, recipe=with_gold(0.5))
    push(made.desk)
    yield made
    made.desk.studio.close()
    made.desk.database.dispose()


def disagree(workplace: Workplace, experts: tuple[Account, Account, Account]) -> None:
    """Two experts agree on the first draft, on nothing in the second, on a trace of the third."""
    first, second, third = workplace.tasks()
    for expert in experts[:2]:
        answer(workplace, expert, first)
    answer(workplace, experts[0], second, verdict_0=["reject"])
    answer(workplace, experts[1], second, verdict_0=["edit"], text_0=[WORDS], verdict_1=["reject"])
    answer(workplace, experts[0], third, verdict_0=["reject"], verdict_1=["reject"])
    answer(
        workplace,
        experts[1],
        third,
        verdict_1=["reject"],
        added_category_1=["anatomy"],
        added_text_1=["The hand has six fingers."],
    )
    assert pull(workplace.desk).new == {COUNTED: 6}


def run(workplace: Workplace, *command: str) -> str:
    """A command as the team types it."""
    done = CliRunner().invoke(
        app,
        list(command),
        env={
            "FAKESCOPE_HOME": str(workplace.home),
            "DATABASE_URL": "",
            "LABEL_STUDIO_URL": workplace.server.url,
            "LABEL_STUDIO_API_KEY": workplace.server.token,
        },
    )
    assert done.exit_code == 0, done.output
    return done.stdout


# Adjudication


def test_disputes_are_queued_settled_and_chained(
    workplace: Workplace, experts: tuple[Account, Account, Account]
) -> None:
    disagree(workplace, experts)
    _, second, third = workplace.drafts
    found = json.loads(run(workplace, "adjudicate", "--json"))
    assert [item["image_id"] for item in found["queue"]] == [second.image_id, third.image_id]
    assert [item["disagreement"] for item in found["queue"]] == [1, pytest.approx(2 / 3)]
    assert found["queue"][1]["disputed"] == ["anatomy", "texture"]
    assert found["made"] == 2

    tasks = [task for _, task in workplace.tasks_of(TaskKind.ADJUDICATION)]
    shown = str([task["data"] for task in tasks])
    for secret in ("expert-1", "expert-2", third.image_id, second.image_id):
        assert secret not in shown
    settle = next(task for task in tasks if "six fingers" in str(task["data"]))
    traces = settle["data"]["traces"]
    assert [trace["heading"].split(":")[0] for trace in traces] == [
        "1. texture", "2. edges", "3. anatomy",
    ]  # fmt: skip
    assert {traces[0]["side_1"], traces[0]["side_2"]} == {"rejects it", "leaves it as it is"}
    assert (traces[0]["side_1_by"], traces[0]["side_2_by"]) == ("expert A", "expert B")
    answered = {r["from_name"]: r["value"] for r in settle["predictions"][0]["result"]}
    assert answered["verdict_1"] == {"choices": ["reject"]}  # both did
    assert not {"verdict_0", "verdict_2", "confidence"} & set(answered)

    answer(
        workplace, experts[2], settle, verdict_0=["accept"], verdict_2=["accept"],
        confidence=["medium"],
    )  # fmt: skip
    assert pull(workplace.desk).new == {COUNTED: 1}
    with workplace.desk.database.read() as session:
        *_, ruling = corrections(session, [third.image_id])[third.image_id]
    assert (ruling.expert, ruling.is_adjudication) == ("expert-3", True)
    assert ruling.outcomes == (ACCEPTED, REJECTED, ADDED)
    assert ruling.reasoning.confidence is Confidence.MEDIUM
    levels = chain_drafts(workplace.desk.database, workplace.desk.recipe).by_level
    assert levels == {
        ReviewLevel.AGREED: 1, ReviewLevel.EXPERT: 1, ReviewLevel.ADJUDICATED: 1,
    }  # fmt: skip
    assert chain_of(workplace, third.image_id) == [
        ("texture", FINDINGS[0].evidence), ("anatomy", "The hand has six fingers."),
    ]  # fmt: skip

    again = json.loads(run(workplace, "adjudicate", "--json"))
    assert (again["made"], [q["image_id"] for q in again["queue"]]) == (0, [second.image_id])


def chain_of(workplace: Workplace, image_id: str) -> list[tuple[str, str]]:
    """Categories and words of the newest chain of an image."""
    with workplace.desk.database.read() as session:
        chains = newest_chains(
            session,
            campaign_id=workplace.desk.campaign_id,
            arms=["main"],
            min_review=ReviewLevel.DRAFT,
        )
        (chain,) = (chain for chain, image in chains if image.image_id == image_id)
    return [(finding.category, finding.evidence) for finding in chain.reasoning.findings]


def test_who_gave_one_of_the_answers_does_not_settle(
    workplace: Workplace, experts: tuple[Account, Account, Account]
) -> None:
    disagree(workplace, experts)
    push(workplace.desk)
    (_, settle), _ = workplace.tasks_of(TaskKind.ADJUDICATION)
    accept_all(workplace, experts[0], settle)
    assert pull(workplace.desk).new == {AnnotationFate.UNREADABLE: 1}
    (flag,) = standing(workplace.desk.database, workplace.desk.recipe).flags
    assert flag.reason == "expert-1 gave one of the answers: somebody else has to settle it"


def test_a_ruling_that_is_taken_back_counts_no_longer(
    workplace: Workplace, experts: tuple[Account, Account, Account]
) -> None:
    disagree(workplace, experts)
    push(workplace.desk)
    (_, settle), _ = workplace.tasks_of(TaskKind.ADJUDICATION)
    ruling = accept_all(workplace, experts[2], settle)
    pull(workplace.desk)
    assert len(json.loads(run(workplace, "adjudicate", "--list", "--json"))["queue"]) == 1
    with api(workplace.server, experts[2]) as client:
        assert client.delete(f"/api/annotations/{ruling}/").status_code == 204
    assert pull(workplace.desk).new == {AnnotationFate.DELETED: 1}
    assert len(json.loads(run(workplace, "adjudicate", "--list", "--json"))["queue"]) == 2


def accept_all(workplace: Workplace, account: Account, settle: dict[str, Any]) -> int:
    traces = range(len(settle["data"]["traces"]))
    kept = {f"verdict_{place}": ["accept"] for place in traces}
    return answer(workplace, account, settle, confidence=["high"], **kept)


# Gold


def settled(workplace: Workplace, experts: tuple[Account, Account, Account]) -> str:
    """The image of a draft that an adjudicator has settled and that is chained: right is `edge`."""
    disagree(workplace, experts)
    push(workplace.desk)
    for _, settle in workplace.tasks_of(TaskKind.ADJUDICATION):
        if "six fingers" not in str(settle["data"]):
            kept = {"verdict_0": ["reject"], "verdict_1": ["accept"], "confidence": ["high"]}
            answer(workplace, experts[2], settle, **kept)
    pull(workplace.desk)
    chain_drafts(workplace.desk.database, workplace.desk.recipe)
    return workplace.drafts[1].image_id


def test_a_gold_item_looks_like_any_other_and_is_scored_alone(
    workplace: Workplace, experts: tuple[Account, Account, Account]
) -> None:
    image_id = settled(workplace, experts)
    before = chain_of(workplace, image_id)
    assert push(workplace.desk).made == 0  # gold joins others only
    workplace.add_drafts(FINDINGS, FINDINGS)
    assert push(workplace.desk).made == 3
    assert push(workplace.desk).made == 0

    shown = workplace.tasks_of(TaskKind.REVIEW)
    (gold,) = (task for subject, task in shown if subject.startswith("gold"))
    others = [task for subject, task in shown if not subject.startswith("gold")]
    assert gold["project"] == others[0]["project"]
    for other in others:
        assert gold["data"].keys() == other["data"].keys()
        assert {k for k in gold if gold[k] is not None} <= set(other)
        assert len(str(gold["data"]["key"])) == len(str(other["data"]["key"]))
    assert gold["data"]["image"] not in [other["data"]["image"] for other in others]
    assert "gold" not in json.dumps(gold).lower()

    answer(workplace, experts[0], gold)
    wrong = answer(workplace, experts[1], gold, verdict_1=["reject"])
    assert pull(workplace.desk).new == {COUNTED: 2}
    with workplace.desk.database.read() as session:
        assert len(corrections(session, [image_id])[image_id]) == 3
    assert chain_drafts(workplace.desk.database, workplace.desk.recipe).new_chains == 2
    assert chain_of(workplace, image_id) == before
    scores = gold_scores(workplace)
    assert scores["expert-1"] == GoldScore(
        items=1, verdicts=0, right_verdicts=0, right_verdict_share=None, precision=0.5, recall=1.0
    )
    assert (scores["expert-2"].precision, scores["expert-2"].recall) == (0, 0)
    assert "gold items (review)  answered" in run(workplace, "quality")

    with api(workplace.server, experts[1]) as client:
        client.delete(f"/api/annotations/{wrong}/")
    pull(workplace.desk)
    assert list(gold_scores(workplace)) == ["expert-1"]


def gold_scores(workplace: Workplace) -> dict[str, GoldScore]:
    quality = measure_quality(workplace.desk.database, workplace.desk.recipe)
    return quality.gold[TaskKind.REVIEW]


def test_the_gold_list_of_the_recipe_has_the_last_word(
    studio_server: Server, tmp_path: Path, experts: tuple[Account, Account, Account]
) -> None:
    made = make_workplace(tmp_path, studio_server, *[FINDINGS] * 2)
    first, second = (draft.image_id for draft in made.drafts)
    folder = tmp_path / "recipe"
    listed = f"gold:\n- {{image: {first}, categories: [texture]}}\n"
    copy_recipe(folder, f"{listed}- {{image: img-{'0' * 20}, categories: []}}\n")
    made.desk = replace(made.desk, recipe=with_gold(0.4, gold=load_recipe(folder).gold))
    assert push(made.desk).made == 3
    ((subject, gold),) = (
        item for item in made.tasks_of(TaskKind.REVIEW) if item[0].startswith("gold")
    )
    answer(made, experts[0], gold)
    pull(made.desk)
    assert gold_scores(made)["expert-1"].precision == 0.5
    assert second not in subject
    made.desk.studio.close()
    made.desk.database.dispose()


# Figures


def test_the_commands_print_what_the_answers_say(
    workplace: Workplace, experts: tuple[Account, Account, Account]
) -> None:
    disagree(workplace, experts)
    found = json.loads(run(workplace, "agreement", "--json"))["reviews"]
    assert found["images"] == 3
    # outcomes: aa aa | re ar | ra rr, of which three are equal
    assert found["overall"]["outcome"]["agreement"] == 0.5
    assert found["overall"]["outcome"]["units"] == 6
    assert found["pairs"][0]["experts"] == ["expert-1", "expert-2"]
    assert found["pairs"][0]["alike"]["times"] == 3  # 7.5 s each
    text = run(workplace, "agreement")
    assert "3 images that two experts or more have reviewed" in text
    quality = json.loads(run(workplace, "quality", "--json"))
    assert quality["traces"]["overall"]["accepted"] == 6
    assert quality["traces"]["by_category"]["texture"]["rejected"] == 2
    assert quality["paces"]["expert-1"] == {
        "images": 3, "timed": 3, "median_s": 7.5, "mean_s": 7.5,
    }  # fmt: skip
    assert "7.5" in run(workplace, "quality")
    assert "wait for an adjudicator" in run(workplace, "adjudicate", "--list")


def copy_recipe(folder: Path, gold: str) -> None:
    shutil.copytree(DEFAULT_RECIPE, folder)
    (folder / "gold.yaml").write_text(gold, encoding="utf-8")
