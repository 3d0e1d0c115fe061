"""Every form in a real browser: what an expert sees there, does there, and what is kept of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from annotation.brush import pixels_of
from annotation.pull import pull
from annotation.server import ENVIRONMENT
from annotation.studio import Studio
from core.recipe import ExemplarSlots, PreferenceStudy, Recipe, load_recipe
from core.records import (
    Authenticity,
    Confidence,
    ImageRecord,
    Mask,
    Region,
    TaskKind,
    TraceOutcome,
)
from core.sentences import as_sentences
from db.blind import labels_among
from db.images import images_by_id
from db.reviews import corrections
from tests.campaigns import store_draft
from tests.e2e.browser import (
    block,
    choose,
    chromium,
    expect_regions,
    laptop,
    log_in,
    open_project,
    option,
    rewrite,
    submit,
    take_up,
)
from tests.label_studio import (
    Account,
    Server,
    Workplace,
    answer,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding

pytestmark = pytest.mark.full

SCRIPT = '<script>document.title="ran"</script><img src=x onerror="document.title=\'ran\'">'
HOSTILE = {
    "script": f"{SCRIPT}<a href=\"javascript:document.title='ran'\">here</a>",
    "template": "{{idx}} {{ traces }} $image $traces[0].text {% raw %} ${7*7} <% x %> &lt;b&gt;",
    "directions": "left \u202eright\u202c \u2066isolate\u2069 \u0639\u0631\u0628\u064a left",
    "controls": "bell \x07 escape \x1b[31m red, nothing \x7f, end",
}
MEGABYTE = "<b>long</b> " * 87_382
THEIRS = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
given = json.load(sys.stdin)
alpha = decode_rle(given["rle"]).reshape(*given["shape"], 4)[:, :, 3]
print(json.dumps((alpha >= 128).tolist()))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def workplaces(studio_server: Server, tmp_path: Path) -> Iterator[list[Workplace]]:
    """Workplaces that a test opens, closed in the end."""
    opened: list[Workplace] = []
    yield opened
    for each in opened:
        each.desk.studio.close()
        each.desk.database.dispose()


class Experts(Studio):
    """The real server, as if these alone had an account there."""

    members: tuple[Account, ...] = ()

    def user_ids(self) -> list[int]:
        return [member.user_id for member in self.members]


def for_experts(workplace: Workplace, *members: Account, recipe: Recipe | None = None) -> None:
    studio = Experts(workplace.server.url, workplace.server.api_key)
    studio.members = members
    workplace.desk = replace(workplace.desk, studio=studio, recipe=recipe or workplace.desk.recipe)


def image_of(workplace: Workplace, number: int = 0) -> ImageRecord:
    image_id = workplace.drafts[number].image_id
    with workplace.desk.database.read() as session:
        return images_by_id(session, [image_id])[image_id]


def listen(page: Page) -> list[str]:
    """What the server tells the browser from now on, as text."""
    told: list[str] = []

    def note(response: Any) -> None:
        if "json" in response.headers.get("content-type", ""):
            told.append(response.text())

    page.on("response", note)
    return told


# Blind


def blind_recipe() -> Recipe:
    recipe = load_recipe()
    drafting = recipe.settings.drafting.model_copy(update={"blind": True})
    settings = recipe.settings.model_copy(update={"drafting": drafting})
    return recipe.model_copy(update={"settings": settings})


def test_a_blind_expert_sees_the_picture_and_nothing_else(
    studio_server: Server, browser: Browser, tmp_path: Path, workplaces: list[Workplace]
) -> None:
    workplace = make_workplace(tmp_path, studio_server, [make_finding(evidence="A secret.")])
    workplaces.append(workplace)
    expert = sign_up(studio_server)
    for_experts(workplace, expert, recipe=blind_recipe())
    push(workplace.desk)
    image = image_of(workplace)
    page = laptop(browser)
    told = listen(page)
    log_in(page, studio_server, expert)
    open_project(page, workplace, TaskKind.BLIND)

    body = page.locator("body")
    expect(page.get_by_text("Which aspects bear your verdict out?")).to_be_hidden()
    page.keyboard.press("1")
    expect(option(body, "fake").locator("input")).to_be_checked()
    page.keyboard.press("2")
    expect(option(body, "real").locator("input")).to_be_checked()
    page.keyboard.type("qwertasdfgzxcvb4567890")  # a word beside a text box answers nothing
    choose(body, "medium")
    choose(body, "texture")
    choose(body, "edges")
    expect(page.locator(".lsf-choice:visible input:checked")).to_have_count(4)
    option(body, "symmetry").hover()
    expect(page.get_by_text(workplace.desk.recipe.taxonomy["symmetry"].definition)).to_be_visible()
    page.screenshot(path=tmp_path / "blind.png")
    seen = "\n".join([body.inner_text(), page.content(), *told])
    for secret in (
        image.image_id, image.sha256, image.original_sha256, image.path, image.source,
        str(image.generator), image.group, "A secret.", "expert-1@",
    ):  # fmt: skip
        assert secret not in seen
    submit(page)

    pull(workplace.desk)
    with workplace.desk.database.read() as session:
        (label,) = labels_among(session, [image.image_id])[image.image_id]
    assert label.verdict is Authenticity.REAL
    assert label.confidence is Confidence.MEDIUM
    assert set(label.categories) == {"texture", "edge"}


# Adjudication


def test_an_adjudicator_sees_both_sides_and_settles(
    studio_server: Server, browser: Browser, tmp_path: Path, workplaces: list[Workplace]
) -> None:
    workplace = make_workplace(
        tmp_path, studio_server, [make_finding("texture"), make_finding("edge")]
    )
    workplaces.append(workplace)
    first, second, third = (sign_up(studio_server) for _ in range(3))
    push(workplace.desk)
    (task,) = workplace.tasks()
    hostile = HOSTILE["script"]
    answer(workplace, first, task, verdict_0=["reject"])
    answer(
        workplace, second, task, verdict_0=["edit"], text_0=[hostile], verdict_1=["reject"],
        added_category_1=["anatomy"], added_text_1=["The hand has six fingers."],
    )  # fmt: skip
    pull(workplace.desk)
    push(workplace.desk)

    page = laptop(browser)
    log_in(page, studio_server, third)
    open_project(page, workplace, TaskKind.ADJUDICATION)
    disputed = block(page, 1)
    expect(disputed).to_contain_text(hostile)
    expect(disputed).to_contain_text("rejects it")
    expect(disputed).to_contain_text("expert A")
    expect(disputed).to_contain_text("expert B")
    expect(disputed.locator("input:checked")).to_have_count(0)
    page.screenshot(path=tmp_path / "adjudication.png")
    choose(disputed, "edit")
    rewrite(disputed, "The texture repeats.")
    choose(block(page, 2), "reject")
    expect(block(page, 3)).to_contain_text("The hand has six fingers.")
    choose(block(page, 3), "accept")
    choose(page.locator("body"), "medium")
    page.screenshot(path=tmp_path / "settled.png")
    submit(page)
    assert_nothing_ran(page)

    pull(workplace.desk)
    image = image_of(workplace)
    with workplace.desk.database.read() as session:
        *_, ruling = corrections(session, [image.image_id])[image.image_id]
    assert ruling.is_adjudication
    assert ruling.outcomes == (TraceOutcome.EDITED, TraceOutcome.REJECTED, TraceOutcome.ADDED)
    assert [finding.evidence for finding in ruling.reasoning.findings] == [
        "The texture repeats.",
        "The hand has six fingers.",
    ]


# Regions


def test_what_is_drawn_is_kept_pixel_by_pixel(
    studio_server: Server, browser: Browser, tmp_path: Path, workplaces: list[Workplace]
) -> None:
    findings = [make_finding("texture"), make_finding("edge"), make_finding("clarity")]
    workplace = make_workplace(tmp_path, studio_server, findings)
    workplaces.append(workplace)
    push(workplace.desk)
    page = laptop(browser)
    log_in(page, studio_server, sign_up(studio_server))
    open_project(page, workplace, TaskKind.REVIEW)
    corners = ((0.2, 0.2), (0.6, 0.25), (0.5, 0.7))
    take_up(page, block(page, 1), "polygon").click(*corners, corners[0])
    expect_regions(page, 1)
    page.keyboard.press("Escape")
    stroke = ((0.3, 0.8), (0.7, 0.8))
    take_up(page, block(page, 2), "brush").drag(*stroke)
    expect_regions(page, 2)
    page.keyboard.press("Escape")
    zoomed_box(page)
    expect_regions(page, 3)
    page.screenshot(path=tmp_path / "regions.png")
    submit(page)

    pull(workplace.desk)
    image = image_of(workplace)
    with workplace.desk.database.read() as session:
        (said,) = corrections(session, [image.image_id])[image.image_id]
    polygon, brush, box = (finding.region for finding in said.reasoning.findings)
    stored = {r["from_name"]: r["value"] for r in workplace.tasks()[0]["annotations"][0]["result"]}
    assert isinstance(polygon, Region)
    assert isinstance(box, Region)
    on_server = [coordinate / 100 for x_y in stored["polygon_0"]["points"] for coordinate in x_y]
    assert [c for point in polygon.points for c in point] == pytest.approx(on_server, abs=1e-12)
    drawn = [coordinate for corner in corners for coordinate in corner]
    assert on_server == pytest.approx(drawn, abs=2 / 240)
    left, top, width, height = (stored["box_2"][n] / 100 for n in ("x", "y", "width", "height"))
    around = (left, top, left + width, top + height)
    assert box.bounding_box() == pytest.approx(around, abs=1e-12)
    assert around == pytest.approx((0.72, 0.3, 0.9, 0.6), abs=2 / 240)
    assert isinstance(brush, Mask)
    marked = pixels_of(brush)
    assert marked.shape == (240, 320)  # upright
    assert marked.tolist() == as_label_studio_reads(stored["brush_1"]["rle"], marked.shape)
    rows, columns = np.nonzero(marked)
    assert (rows.mean(), columns.mean()) == pytest.approx((0.8 * 240, 0.5 * 320), abs=2)


def as_label_studio_reads(rle: list[int], shape: tuple[int, ...]) -> Any:
    """The pixels of a mask that are marked to the half or more, by its own code."""
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", THEIRS],
        input=json.dumps({"rle": rle, "shape": shape}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def zoomed_box(page: Page) -> None:
    """A box on the enlarged picture, beside the other regions."""
    page.keyboard.press("Control++")
    picture = take_up(page, block(page, 3), "box")
    assert picture.width > 320
    picture.drag((0.72, 0.3), (0.8, 0.4), (0.9, 0.6))


# Hostile text


def assert_nothing_ran(page: Page) -> None:
    assert page.title() == "Label Studio"


def assert_shown(page: Page, text: str) -> None:
    """The page holds the text as text, every character of it."""
    page.wait_for_function("text => document.body.textContent.includes(text)", arg=text)
    assert_nothing_ran(page)


def test_hostile_text_is_shown_as_text_in_every_form_and_list(
    studio_server: Server, browser: Browser, tmp_path: Path, workplaces: list[Workplace]
) -> None:
    findings = [make_finding(evidence=text) for text in (*HOSTILE.values(), MEGABYTE)]
    workplace = make_workplace(tmp_path, studio_server, findings)
    workplaces.append(workplace)
    expert = sign_up(studio_server)
    recipe = with_studies(workplace.desk.recipe)
    for_experts(workplace, expert, recipe=recipe)
    (draft,) = workplace.drafts
    store_draft(
        workplace.desk.database, draft.campaign_id, image_of(workplace),
        make_finding(evidence=HOSTILE["script"]), arm="plain", question="plain",
    )  # fmt: skip
    push(workplace.desk)
    (task,) = workplace.tasks()
    assert [trace["text"] for trace in task["data"]["traces"]] == [*HOSTILE.values(), MEGABYTE]

    page = laptop(browser)
    log_in(page, studio_server, expert)
    for kind in (TaskKind.EXEMPLAR, TaskKind.PREFERENCE):
        open_project(page, workplace, kind)
        for text in (*HOSTILE.values(), MEGABYTE):
            assert_shown(page, as_sentences(text))
        page.screenshot(path=tmp_path / f"hostile-{kind}.png")
    open_project(page, workplace, TaskKind.REVIEW)
    for text in (*HOSTILE.values(), MEGABYTE):
        assert_shown(page, text.strip())
    page.screenshot(path=tmp_path / "hostile-review.png")
    option(page.locator("body"), "reject").last.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "after-a-megabyte.png")
    submit(page)
    assert_in_the_list(page, workplace, tmp_path)

    pull(workplace.desk)
    image = image_of(workplace)
    with workplace.desk.database.read() as session:
        (said,) = corrections(session, [image.image_id])[image.image_id]
    assert [f.evidence for f in said.reasoning.findings] == [*HOSTILE.values(), MEGABYTE]


def assert_in_the_list(page: Page, workplace: Workplace, folder: Path) -> None:
    """The data manager, and the source of a task there."""
    page.goto(f"{workplace.server.url}/projects/{workplace.project_id}/data")
    words = page.get_by_text("speaks for a generated picture").first
    expect(words).to_be_visible()
    expect(words).to_contain_text('<script>document.title=\\"ran\\"</script>')
    page.screenshot(path=folder / "list.png")
    row = words.locator("xpath=ancestor::*[contains(@class, 'row')][1]")
    row.get_by_role("button").last.click()
    source = page.get_by_text("Source for task")
    expect(source).to_be_visible()
    expect(page.get_by_text("onerror=").last).to_be_visible()
    page.screenshot(path=folder / "source.png")
    assert_nothing_ran(page)


def with_studies(recipe: Recipe) -> Recipe:
    review = recipe.settings.review.model_copy(
        update={
            "exemplars": ExemplarSlots(fake=1, real=0),
            "preference": PreferenceStudy(arms=("main", "plain"), images=1, experts=1),
        }
    )
    settings = recipe.settings.model_copy(update={"review": review})
    return recipe.model_copy(update={"settings": settings})
