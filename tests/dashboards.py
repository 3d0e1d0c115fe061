"""The real dashboard in a real browser, for tests and for whoever wants to look at it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.brokers import free_port, skip_or_fail, wait_for_port

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
WIDTH, HEIGHT, TALLEST = 1280, 900, 4000
NAMED = {
    "button", "checkbox", "combobox", "graphics-document", "image", "link", "radio", "searchbox",
    "slider", "spinbutton", "switch", "tab", "textbox",
}  # fmt: skip
"""roles of controls, pictures and charts"""
CELLS = {"columnheader", "gridcell"}
MOST_STOPS = 300
STOP = """() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    element.setAttribute("data-reached", "");
    const drawn = element.closest("canvas") ?? element;  // the cells of a table are painted
    const style = getComputedStyle(drawn), box = drawn.getBoundingClientRect();
    let opacity = 1;
    for (let each = drawn; each; each = each.parentElement)
        opacity *= getComputedStyle(each).opacity;
    const name = element.ariaLabel || element.innerText || element.tagName;
    const hasOutline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    return {name, ring: hasOutline && opacity > 0.9 && box.width > 0 && box.height > 0};
}"""
UNREACHED = """() => [...document.querySelectorAll("a[href], button, input, summary, canvas")]
    .filter(each => each.tabIndex >= 0 && each.checkVisibility() && !each.disabled)
    .filter(each => !each.hasAttribute("data-reached"))
    .filter(each => !each.closest("[role=radiogroup]:has([data-reached])"))  // arrows go on there
    .map(each => each.ariaLabel || each.innerText || each.tagName)"""
PROBE = re.compile(r"/\w+/_stcore/(health|host-config)$")
"""how Streamlit finds out from a page's address where its server begins; 404 is the answer"""


@contextmanager
def running_dashboard(home: Path, *, port: int | None = None, **environment: str) -> Iterator[str]:
    """The address of a dashboard over one home folder; its log lies in that folder's parent."""
    port = port or free_port()
    command = [sys.executable, "-m", "dashboard", "--port", str(port)]
    own = {"FAKESCOPE_HOME": str(home), "PYTHONPATH": str(ROOT), **environment}
    settings = ("DATABASE_URL", "OPENAI_BASE_URL", "OPENAI_MODEL")
    inherited = {name: value for name, value in os.environ.items() if name not in settings}
    with (home.parent / "dashboard.log").open("w") as log:
        server = subprocess.Popen(
            command, env=inherited | own, stdout=log, stderr=subprocess.STDOUT, cwd=home.parent
        )
        try:
            wait_for_port(port, SECONDS)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=SECONDS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium without a window."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        skip_or_fail("Chromium", "apt-get install chromium")
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Viewer:
    """Somebody who looks at pages, and notes what goes wrong in the browser."""

    page: Page
    address: str
    pictures: Path
    """folder that keeps what was seen"""
    complaints: list[str] = field(default_factory=list)
    """of the browser: errors on the console, scripts that failed, requests to elsewhere"""

    @classmethod
    def with_browser(
        cls, browser: Browser, address: str, pictures: Path, *, dark: bool = False
    ) -> Viewer:
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if dark else "light"
        )
        page.set_default_timeout(SECONDS * 1000)
        viewer = cls(page=page, address=address, pictures=pictures)
        page.on("console", viewer._note)
        page.on("pageerror", lambda error: viewer.complaints.append(str(error)))
        page.on("request", lambda request: viewer._note_request(request.url))
        return viewer

    def look_at(self, path: str, name: str) -> None:
        """Open a page, wait until all of it stands there, and keep a picture."""
        self.page.goto(f"{self.address}/{path}")
        self.settle()
        height = self.page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        self.page.set_viewport_size({"width": WIDTH, "height": min(max(height, HEIGHT), TALLEST)})
        self.settle()
        self.page.screenshot(path=self.pictures / f"{name}.png")
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def settle(self) -> None:
        """Until the script of the page has ended and its charts are drawn."""
        ended = '[data-testid="stApp"][data-test-script-state="notRunning"]'
        expect(self.page.locator(ended)).to_be_visible()
        expect(self.page.get_by_test_id("stSkeleton")).to_have_count(0)
        for chart in self.page.get_by_test_id("stVegaLiteChart").all():
            drawn = chart.locator("canvas, svg").first
            if chart.is_visible():
                expect(drawn).to_be_visible()
        self.page.wait_for_load_state("networkidle")

    def nameless(self) -> list[str]:
        """Roles of what a screen reader meets without a name; cells of tables may be empty."""
        return [role for role, name in self._met() if role in NAMED and not name]

    def cells(self) -> list[str]:
        """What a screen reader meets in the tables: headings and cells, row by row.

        They are painted, and stand behind their canvas as a table a moment later.
        """
        for table in self.page.get_by_test_id("stDataFrame").all():
            expect(table.locator("canvas [role=gridcell]").first).to_be_attached()
        return [name for role, name in self._met() if role in CELLS]

    def _met(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader meets, by Chromium's accessibility tree."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        session.detach()
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "").strip())
            for node in nodes
            if not node["ignored"]
        ]

    def figures(self) -> dict[str, str]:
        """The large numbers by their titles."""
        names, values = (
            self.page.get_by_test_id(f"stMetric{part}").all_inner_texts()
            for part in ("Label", "Value")
        )
        return dict(zip(names, values, strict=True))

    def tab_through(self) -> list[str]:
        """What Tab reaches, in order; AssertionError where nothing shows what was reached."""
        self.page.evaluate("document.activeElement.blur()")
        reached: list[str] = []
        while len(reached) < MOST_STOPS:
            self.page.keyboard.press("Tab")
            stop = self.page.evaluate(STOP)
            if stop is None:
                return reached
            assert stop["ring"], f"{stop['name']} shows no focus"
            reached.append(stop["name"])
        raise AssertionError(f"Tab never left the page: {reached[-5:]}")

    def unreached(self) -> list[str]:
        """The controls in sight that `tab_through` did not come to."""
        found: list[str] = self.page.evaluate(UNREACHED)
        return found

    def text(self) -> str:
        """All words that stand on the page."""
        return self.page.locator('[data-testid="stApp"]').inner_text()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not PROBE.search(message.location.get("url", "")):
            self.complaints.append(message.text)

    def _note_request(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:", "ws://127.0.0.1")):
            self.complaints.append(f"asked for {url}")


def look_for_harm(viewer: Viewer, path: str, name: str) -> None:
    """Open a page on which everything that others wrote is hostile: none of it ran or loaded."""
    viewer.look_at(path, name)
    assert viewer.nameless() == []
    assert viewer.page.title() not in ("ran", "1")
    expect(viewer.page.get_by_test_id("stException")).to_have_count(0)
    assert viewer.page.locator('[data-testid="stMain"] a[href^="javascript"]').count() == 0
    assert viewer.page.locator('img[src="x"]').count() == 0
    for words in ("name", "link"):  # of Markdown links in what is hostile; none became one
        main = viewer.page.get_by_test_id("stMain")
        assert main.get_by_role("link", name=words, exact=True).count() == 0
        assert main.locator("a", has_text=words).count() == 0
