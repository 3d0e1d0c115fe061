"""An expert's hands in a real Chromium: each step waits until the page shows that it was taken.

The server and the browser may be slow, and panels move while they unfold. So nothing here waits
for a time; whatever a step is to bring about is looked for, and the step is repeated where a
moving page may have swallowed it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from annotation.projects import opened_projects
from core.records import TaskKind
from tests.brokers import skip_or_fail
from tests.label_studio import PASSWORD, Account, Server, Workplace

SECONDS = 120
ATTEMPTS = 10
LAPTOP = {"width": 1366, "height": 768}
HOSTILE = (
    '<script>document.title="ran"</script><img src=x onerror="document.title=1"> {{idx}} $image'
)
STILL = "() => new Promise(done => setTimeout(() => done(true), 250))"
LOADED = "() => [...document.images].every(image => image.complete)"


Place = tuple[float, float]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a screen; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        skip_or_fail("Chromium", "apt-get install chromium")
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


def laptop(browser: Browser) -> Page:
    """A page as large as a small laptop shows it."""
    page = browser.new_page(viewport=LAPTOP)
    page.set_default_timeout(SECONDS * 1000)
    page.on("dialog", lambda dialog: page.evaluate("document.title = 'ran'") or dialog.dismiss())
    return page


def log_in(page: Page, server: Server, account: Account) -> None:
    page.goto(f"{server.url}/user/login/")
    page.locator("#email").fill(account.email)
    page.locator("#password").fill(PASSWORD)
    page.locator("#password").press("Enter")
    page.wait_for_url(lambda url: "login" not in url, wait_until="commit")


def open_project(page: Page, workplace: Workplace, kind: TaskKind) -> None:
    """Where an expert begins with the tasks of a kind, the instructions read."""
    (project,) = (each for each in opened_projects(workplace.desk) if each.kind is kind)
    page.goto(f"{workplace.server.url}/projects/{project.project_id}/data?labeling=1")
    expect(page.get_by_text("Labeling Instructions")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Labeling Instructions")).to_be_hidden()
    expect(page.get_by_role("button", name="Submit").first).to_be_visible()
    page.wait_for_function(LOADED)


def submit(page: Page) -> None:
    with page.expect_response(is_answer):
        page.keyboard.press("Control+Enter")


def is_answer(response: Any) -> bool:
    return "/annotations" in response.url and response.request.method == "POST"


def block(page: Page, number: int) -> Locator:
    """The frame around one trace, counted from 1."""
    return page.locator("h4", has_text=f"{number}. ").locator("..")


def option(place: Locator, answer: str) -> Locator:
    """Exactly this answer, with or without a key beside it."""
    return place.locator(".lsf-choice", has_text=re.compile(rf"^{re.escape(answer)}(\[.\])?$"))


def choose(place: Locator, answer: str) -> None:
    option(place, answer).locator("label").click()
    expect(option(place, answer).locator("input")).to_be_checked()


def rewrite(place: Locator, text: str) -> None:
    box = place.get_by_test_id("htx-textbox-input")
    repeat(
        lambda: (
            place.get_by_test_id("htx-textbox-content").hover(),
            place.get_by_test_id("htx-textbox-edit-button").click(),
        ),
        until=box,
    )
    box.fill(text)
    place.get_by_test_id("htx-textbox-save").click()
    expect(box).to_be_hidden()


def add_trace(page: Page, category: str, text: str) -> None:
    panel = page.locator(".ant-collapse-item", has_text="Add a trace (1 of")
    menu, words = panel.get_by_test_id("select-trigger"), panel.get_by_test_id("textarea-input")
    repeat(page.get_by_text("Add a trace (1 of").click, until=words)
    wanted = page.get_by_role("option", name=category)
    repeat(menu.click, until=wanted)
    wanted.click()
    page.keyboard.press("Escape")
    words.fill(text)
    panel.get_by_test_id("textarea-add-button").click()
    expect(panel.get_by_text(text)).to_be_visible()


def repeat(step: Callable[[], object], *, until: Locator) -> None:
    """Take a step until something is seen: a panel that still moves swallows it."""
    for _ in range(ATTEMPTS):
        step()
        with suppress(PlaywrightTimeout):
            until.wait_for(timeout=SECONDS * 1000 / ATTEMPTS)
            return
    expect(until).to_be_visible()


@dataclass(frozen=True)
class Canvas:
    """The picture on the screen; places on it are fractions of its width and height."""

    page: Page
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, page: Page) -> Canvas:
        """Once the picture stands still."""
        picture = page.locator("img[alt='image']")
        before = None
        while (box := picture.bounding_box()) is None or box != before:
            before = box
            page.wait_for_function(STILL)
        return cls(page, box["x"], box["y"], box["width"], box["height"])

    def at(self, place: Place) -> Place:
        return self.left + place[0] * self.width, self.top + place[1] * self.height

    def drag(self, *places: Place) -> None:
        """Along these places, the button held down."""
        self.page.mouse.move(*self.at(places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(place), steps=20)
        self.page.mouse.up()

    def click(self, *places: Place) -> None:
        for place in places:
            self.page.mouse.click(*self.at(place))


def take_up(page: Page, place: Locator, tool: str) -> Canvas:
    """Take up a tool in the block of a trace; the picture that it draws on."""
    label = place.locator(".lsf-label", has_text=tool)
    label.click()
    expect(label).to_have_class(re.compile("selected"))
    return Canvas.of(page)


def expect_regions(page: Page, count: int) -> None:
    """The panel on the right lists so many."""
    expect(page.locator(".lsf-outliner-item__content")).to_have_count(count)
