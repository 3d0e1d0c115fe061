"""An expert at work, in a real browser on a real Label Studio: what she does is what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr

from annotation.chains import chain_drafts
from annotation.pull import pull
from annotation.studio import Studio
from core.recipe import ExemplarSlots, PreferenceStudy
from core.records import Draft, Region, ReviewLevel, TaskKind, TraceFinding, TraceOutcome
from db.chains import newest_chains
from db.images import images_by_id
from db.judgements import DESCRIPTIONS, PREFERENCES
from db.reviews import corrections
from tests.campaigns import store_draft
from tests.e2e.browser import (
    HOSTILE,
    add_trace,
    block,
    choose,
    chromium,
    expect_regions,
    is_answer,
    laptop,
    log_in,
    open_project,
    option,
    rewrite,
    submit,
    take_up,
)
from tests.label_studio import (
    Server,
    Workplace,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding

BOX = Region(points=((0.05, 0.25), (0.2, 0.25), (0.2, 0.75), (0.05, 0.75)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def workplace(studio_server: Server, tmp_path: Path) -> Iterator[Workplace]:
    marked = TraceFinding(
        category="clarity",
        evidence=HOSTILE,
        points_to=make_finding().points_to,
        region=BOX,
    )
    made = make_workplace(tmp_path, studio_server, [make_finding(), make_finding("edge"), marked])
    push(made.desk)
    yield made
    made.desk.studio.close()
    made.desk.database.dispose()


def test_what_an_expert_does_in_the_browser_is_exactly_what_is_kept(
    workplace: Workplace, browser: Browser, tmp_path: Path
) -> None:
    (draft,) = workplace.drafts
    page = laptop(browser)
    log_in(page, workplace.server, sign_up(workplace.server))
    open_project(page, workplace, TaskKind.REVIEW)
    see_the_draft(page, draft)
    page.screenshot(path=tmp_path / "draft.png")
    choose(block(page, 2), "edit")
    rewrite(block(page, 2), "The edges ring.")
    choose(block(page, 3), "reject")
    expect_regions(page, 1)  # the draft's
    take_up(page, block(page, 1), "box").drag((0.3, 0.1), (0.6, 0.3), (0.9, 0.5))
    expect_regions(page, 2)
    add_trace(page, "anatomy", "The hand has six fingers.")
    page.screenshot(path=tmp_path / "answered.png", full_page=True)
    with page.expect_response(is_answer):
        page.get_by_role("button", name="Submit").first.click()
    assert page.title() == "Label Studio"  # no script of the draft ran

    pull(workplace.desk)
    chain_drafts(workplace.desk.database, workplace.desk.recipe)
    with workplace.desk.database.read() as session:
        (said,) = corrections(session, [draft.image_id])[draft.image_id]
        ((chain, _),) = newest_chains(
            session,
            campaign_id=draft.campaign_id,
            arms=[draft.arm],
            min_review=ReviewLevel.EXPERT,
        )
    assert said.outcomes == (
        TraceOutcome.ACCEPTED,
        TraceOutcome.EDITED,
        TraceOutcome.REJECTED,
        TraceOutcome.ADDED,
    )
    texture, edge, anatomy = said.reasoning.findings
    assert texture.evidence == draft.reasoning.findings[0].evidence
    assert texture.region is not None
    assert texture.region.bounding_box() == pytest.approx((0.3, 0.1, 0.9, 0.5), abs=0.01)
    assert texture.region.bounding_box() == pytest.approx(box_on_server(workplace))
    assert (edge.category, edge.evidence) == ("edge", "The edges ring.")
    assert (anatomy.category, anatomy.evidence) == ("anatomy", "The hand has six fingers.")
    assert said.reasoning.conclusion == draft.reasoning.conclusion
    assert said.reasoning.confidence is draft.reasoning.confidence
    assert chain.reasoning.findings == said.reasoning.findings


def box_on_server(workplace: Workplace) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the first trace's box as Label Studio has it, as fractions."""
    (task,) = workplace.tasks()
    (result,) = (item for item in task["annotations"][0]["result"] if item["from_name"] == "box_0")
    assert (result["original_width"], result["original_height"]) == (320, 240)  # upright
    box = {name: result["value"][name] / 100 for name in ("x", "y", "width", "height")}
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def see_the_draft(page: Page, draft: Draft) -> None:
    for number, finding in enumerate(draft.reasoning.findings, start=1):
        expect(block(page, number)).to_contain_text(finding.evidence)
        expect(option(block(page, number), "accept").locator("input")).to_be_checked()
    expect(page.get_by_text(draft.reasoning.conclusion)).to_be_visible()
    expect(option(page.locator("body"), "high").locator("input")).to_be_checked()


@pytest.fixture
def studies(workplace: Workplace) -> Iterator[Workplace]:
    """A recipe that asks for an exemplar and for a preference, pushed."""
    review = workplace.desk.recipe.settings.review.model_copy(
        update={
            "exemplars": ExemplarSlots(fake=1, real=0),
            "preference": PreferenceStudy(arms=("main", "plain"), images=1, experts=1),
        }
    )
    settings = workplace.desk.recipe.settings.model_copy(update={"review": review})
    recipe = workplace.desk.recipe.model_copy(update={"settings": settings})
    (draft,) = workplace.drafts
    with workplace.desk.database.read() as session:
        image = images_by_id(session, [draft.image_id])[draft.image_id]
    store_draft(
        workplace.desk.database, draft.campaign_id, image, make_finding("theme"), arm="plain",
        question="plain",
    )  # fmt: skip
    yield replace(workplace, desk=replace(workplace.desk, recipe=recipe))


@pytest.mark.full
def test_an_expert_merges_an_exemplar_and_prefers_a_text(
    studies: Workplace, browser: Browser, tmp_path: Path
) -> None:
    expert = sign_up(studies.server)
    studies.desk = replace(
        studies.desk, studio=OneExpert(studies.server.url, studies.server.api_key, expert.user_id)
    )
    push(studies.desk)
    page = laptop(browser)
    log_in(page, studies.server, expert)

    open_project(page, studies, TaskKind.EXEMPLAR)
    expect(page.get_by_text("This picture was generated: it is fake.")).to_be_visible()
    page.get_by_placeholder("What shows it?").fill("The hand\nhas six fingers.")
    rewrite(page.locator("body"), f"This image is fake, because:\n1. Six fingers. {HOSTILE}")
    choose(page.locator("body"), "anatomy")
    page.screenshot(path=tmp_path / "exemplar.png")
    submit(page)

    open_project(page, studies, TaskKind.PREFERENCE)
    page.keyboard.press("2")
    expect(option(page.locator("body"), "right").locator("input")).to_be_checked()
    page.screenshot(path=tmp_path / "preference.png")
    submit(page)
    assert page.title() == "Label Studio"  # no script of a text ran

    pull(studies.desk)
    with studies.desk.database.read() as session:
        (described,) = DESCRIPTIONS.counting(session)
        (said,) = PREFERENCES.counting(session)
    assert described.own == "The hand\nhas six fingers."
    assert described.merged == f"This image is fake, because:\n1. Six fingers. {HOSTILE}"
    assert set(described.categories) == {"texture", "edge", "clarity", "anatomy"}
    assert not said.preferred_first
    (draft,) = studies.drafts
    assert draft.draft_id in (said.preferred, said.other)


class OneExpert(Studio):
    """The real server, as if one expert alone had an account there."""

    def __init__(self, url: str, api_key: SecretStr, user_id: int) -> None:
        super().__init__(url, api_key)
        self._expert = user_id

    def user_ids(self) -> list[int]:
        return [user_id for user_id in super().user_ids() if user_id == self._expert]
