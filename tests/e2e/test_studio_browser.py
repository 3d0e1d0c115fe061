"""An expert at work, in a real browser on a real Label Studio: what she does is what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from annotation.chains import chain_drafts
from annotation.pull import pull
from core.records import Draft, Region, ReviewLevel, TraceFinding, TraceOutcome
from db.chains import newest_chains
from db.reviews import corrections
from tests.brokers import skip_or_fail
from tests.label_studio import (
    PASSWORD,
    Account,
    Server,
    Workplace,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding

SECONDS = 120
HOSTILE = (
    '<script>document.title="ran"</script><img src=x onerror="document.title=1"> {{idx}} $image'
)
BOX = Region(points=((0.05, 0.25), (0.2, 0.25), (0.2, 0.75), (0.05, 0.75)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        skip_or_fail("Chromium", "apt-get install chromium")
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


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
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(SECONDS * 1000)
    log_in(page, workplace.server, sign_up(workplace.server))
    page.goto(f"{workplace.server.url}/projects/{workplace.project_id}/data?labeling=1")
    expect(page.get_by_text("Labeling Instructions")).to_be_visible()
    page.keyboard.press("Escape")

    see_the_draft(page, draft)
    page.screenshot(path=tmp_path / "draft.png")
    choose(block(page, 2), "edit")
    rewrite(block(page, 2), "The edges ring.")
    choose(block(page, 3), "reject")
    draw_box(page, block(page, 1))
    add_trace(page, "anatomy", "The hand has six fingers.")
    page.screenshot(path=tmp_path / "answered.png", full_page=True)
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST"):
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
    assert texture.region.bounding_box() == pytest.approx((0.3, 0.1, 0.9, 0.5), abs=0.1)
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


def log_in(page: Page, server: Server, account: Account) -> None:
    page.goto(f"{server.url}/user/login/")
    page.locator("#email").fill(account.email)
    page.locator("#password").fill(PASSWORD)
    page.locator("#password").press("Enter")
    page.wait_for_url(lambda url: "login" not in url, wait_until="commit")


def see_the_draft(page: Page, draft: Draft) -> None:
    for number, finding in enumerate(draft.reasoning.findings, start=1):
        expect(block(page, number)).to_contain_text(finding.evidence)
        expect(option(block(page, number), "accept").locator("input")).to_be_checked()
    expect(page.get_by_text(draft.reasoning.conclusion)).to_be_visible()
    expect(option(page.locator("body"), "high").locator("input")).to_be_checked()


def block(page: Page, number: int) -> Locator:
    """The frame around one trace of the draft, counted from 1."""
    return page.locator("h4", has_text=f"{number}. ").locator("..")


def option(place: Locator, answer: str) -> Locator:
    return place.locator(".lsf-choice", has_text=answer)


def choose(place: Locator, answer: str) -> None:
    option(place, answer).locator("label").click()


def rewrite(place: Locator, text: str) -> None:
    place.get_by_test_id("htx-textbox-content").hover()
    place.get_by_test_id("htx-textbox-edit-button").click()
    place.get_by_test_id("htx-textbox-input").fill(text)
    place.get_by_test_id("htx-textbox-save").click()


def draw_box(page: Page, place: Locator) -> None:
    """From 30 to 90 % of the width and 10 to 50 % of the height of the upright picture."""
    place.get_by_text("box", exact=True).click()
    canvas = page.locator(".konvajs-content canvas").first.bounding_box()
    assert canvas is not None
    x, y, width, height = (canvas[name] for name in ("x", "y", "width", "height"))
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    page.mouse.move(x + 0.3 * width, y + 0.1 * height)
    page.mouse.down()
    page.mouse.move(x + 0.6 * width, y + 0.3 * height, steps=20)
    page.mouse.move(x + 0.9 * width, y + 0.5 * height, steps=20)
    page.mouse.up()


def add_trace(page: Page, category: str, text: str) -> None:
    page.get_by_text("Add a trace (1 of").click()
    panel = page.locator(".ant-collapse-item", has_text="Add a trace (1 of")
    panel.get_by_test_id("select-trigger").click()
    page.get_by_role("option", name=category).click()
    page.keyboard.press("Escape")
    panel.get_by_test_id("textarea-input").fill(text)
    panel.get_by_test_id("textarea-add-button").click()
