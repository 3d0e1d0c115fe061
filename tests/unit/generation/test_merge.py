"""Replies that name a topic or word kept points: what is taken from them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.consensus import count_votes
from core.errors import DataError
from core.recipe import RECIPES, load_recipe
from core.records import Authenticity, Confidence, Reasoning, Region
from core.topics import Topic
from generation.brief import Brief
from generation.parse_merge import parse_merge
from tests.campaigns import make_reply
from tests.unit.records import make_draft, make_finding, make_image

RECIPE = load_recipe(RECIPES / "fakeclue")
IMAGE = make_image("x", label=Authenticity.FAKE)
OPENING = "This is a fake image."
PLACE = Region(points=((0, 0), (1, 0), (1, 1)))
DRAFTS = tuple(
    make_draft(
        IMAGE,
        *(make_finding(category=name) for name in categories),
        draft_id=f"draft-{arm}",
        arm=arm,
        teacher=f"model-{arm}",
    )
    for arm, categories in {"first": ["texture", "edges"], "second": ["edges"]}.items()
)
KEPT = [vote for vote in count_votes(DRAFTS, RECIPE.taxonomy, needed=2) if vote.is_kept]


def read(*points: tuple[str, str], conclusion: str = f"{OPENING} Edges show it.") -> Reasoning:
    findings = [{"category": c, "points_to": side, "evidence": f"{c} shows."} for c, side in points]
    content = json.dumps({"findings": findings, "conclusion": conclusion})
    return parse_merge(
        make_reply("r", content=content),
        KEPT,
        label=Authenticity.FAKE,
        opening=OPENING,
        confidence=Confidence.MEDIUM,
    )


def test_the_words_are_the_models_and_the_points_are_ours() -> None:
    reasoning = read(("edges", "fake"))
    (finding,) = reasoning.findings
    assert (finding.category, finding.evidence) == ("edges", "Edges shows.")
    assert (reasoning.verdict, reasoning.confidence) == (Authenticity.FAKE, Confidence.MEDIUM)


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([], r"lacks edges \(fake\)"),
        ([("edges", "real")], r"lacks edges \(fake\); adds edges \(real\)"),
        ([("edges", "fake"), ("texture", "fake")], r"adds texture \(fake\)"),
        ([("edges", "fake"), ("edges", "fake")], r"adds edges \(fake\)"),
    ],
)
def test_a_model_cannot_add_or_drop_a_point(points: list[tuple[str, str]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(*points)


def test_the_conclusion_opens_with_the_fixed_sentence() -> None:
    with pytest.raises(DataError, match="does not begin with 'This is a fake image"):
        read(("edges", "fake"), conclusion="The image is fake.")


def brief(arm: str, **changes: Any) -> Brief:
    return Brief(recipe=RECIPE, arm=RECIPE.arm(arm), image=IMAGE, **changes)


def test_a_merged_draft_names_the_drafts_and_their_teachers() -> None:
    merging = brief("consensus", drafts=DRAFTS)
    merging.check()
    request = merging.render(b"").request
    assert request.pictures == ()
    task = json.loads(request.question.splitlines()[-1])
    assert [point["category"] for point in task["points"]] == ["edges"]
    assert task["opening"] == OPENING


def test_one_draft_alone_is_not_merged() -> None:
    with pytest.raises(DataError, match=r"1 of the arms first, second, third .* 2 votes"):
        brief("consensus", drafts=DRAFTS[:1]).check()


def test_an_image_without_a_topic_is_not_inspected() -> None:
    with pytest.raises(DataError, match="nobody has said which topic"):
        brief("first").check()


def test_the_prompt_holds_the_points_of_the_topic_alone() -> None:
    topic = next(topic for topic in RECIPE.topics if "nostrils" in topic.fake)
    request = brief("first", topic=topic).render(b"pixels").request
    schema = json.loads(request.reply_schema)
    finding = schema["properties"]["findings"]["items"]["properties"]
    assert finding["category"]["enum"] == list(topic.fake)
    assert finding["glaring"] == {"type": "boolean"}
    assert topic.name in request.instructions


def test_a_topic_that_the_recipe_lacks_is_refused() -> None:
    said = brief("topic").read(make_reply("r", content='{"topic": "scene"}'))
    assert isinstance(said, Topic) and said.id == "scene"
    with pytest.raises(DataError, match="unknown topic: art"):
        brief("topic").read(make_reply("r", content='{"topic": "art"}'))


def test_a_region_comes_from_the_first_teacher_who_gave_one() -> None:
    with_place = make_draft(
        IMAGE, make_finding(category="edges"), arm="third", draft_id="draft-third"
    )
    finding = with_place.reasoning.findings[0]
    placed = make_draft(
        IMAGE,
        type(finding)(
            category="edges", evidence="There.", points_to=finding.points_to, region=PLACE
        ),
        arm="third",
        draft_id="draft-third",
    )
    merging = brief("consensus", drafts=(DRAFTS[1], placed))
    content = json.dumps(
        {
            "findings": [{"category": "edges", "points_to": "fake", "evidence": "Edges step."}],
            "conclusion": OPENING,
        }
    )
    said = merging.read(make_reply("r", content=content))
    assert isinstance(said, Reasoning) and said.findings[0].region == PLACE
