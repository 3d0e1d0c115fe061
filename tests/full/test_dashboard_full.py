"""Every part of every page of the dashboard, light and dark, with hostile text everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from benchmarks.seeded_installation import Size, fill_database, make_images, write_set
from core.recipe import load_recipe
from core.settings import load_settings
from db.engine import open_database
from tests.brokers import free_port
from tests.dashboards import ROOT, Viewer, look_for_harm, running_browser, running_dashboard
from tests.e2e.project import Finished, make_project
from tests.installations import HOSTILE, HOSTILE_NAME, make_installation
from tests.oidc import BUTTON, CLIENT, SECRET, running_provider

pytestmark = pytest.mark.full

LARGE = Size(images=100_000, reviewed=1_000, rows_per_image=20)
PAGES = ("", "images", "drafts", "experts", "teachers", "instruct", "runs")
"""by address; the first page has none"""
PARTS = {
    "progress": f"?reason={HOSTILE[:40]}",
    "clusters": "images?view=Near-duplicates",
    "shortcuts": "images?view=Shortcuts",
    "sent": "drafts?part=What the teacher was sent&fault=an expert edited it",
    "answered": "drafts?part=What it answered",
    "calls": "drafts?part=Calls and cost",
    "each-expert": "experts?view=Each expert",
    "queue": "experts?view=Adjudication queue",
    "flagged": "experts?view=Work that does not count",
    "reader": "instruct?view=Reader",
    "checks": "instruct?view=Balance and leaks",
    "difference": "instruct?view=Difference of two builds",
    "report": "runs?view=Report",
    "generators": "runs?view=Runs by generator",
    "calibration": "runs?view=Calibration",
    "errors": "runs?view=Most confident errors",
    "evaluations": "runs?view=Evaluations",
    "predictions": "runs?view=Predictions",
}
EVERYTHING = {path or "progress": path for path in PAGES} | PARTS
"""addresses by the name of the picture that is kept"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder after `make build-instruct`, a short `make train`, and predictions."""
    project = make_project(tmp_path_factory.mktemp("demo"))
    images, run = project.home / "images", project.home / "runs" / "tiny"
    tiny = ROOT / "recipes" / "fakescope" / "training" / "tiny.yaml"
    folders = ("--shards", project.shards, "--images", images, "--out", run)
    few = ("optimiser.steps=10", "optimiser.warmup_steps=2", "scoring.validate_every=5")
    finish(project.build_instruct())
    finish(project.run("training.run", tiny, *folders, *few, timeout=900))
    checkpoint = max((run / "checkpoints").iterdir())
    out = project.home / "predictions" / "demo.jsonl"
    out.parent.mkdir()
    finish(project.run("training.predict", images, "--checkpoint", checkpoint, "--out", out))
    return project.home


def finish(done: Finished) -> None:
    assert done.code == 0, done


@pytest.mark.parametrize("dark", [False, True])
def test_every_part_of_every_page_stands_on_the_demo(
    demo: Path, tmp_path: Path, dark: bool
) -> None:
    with running_dashboard(demo) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path, dark=dark)
        for name, path in EVERYTHING.items():
            look_for_harm(viewer, path, f"demo-{name}")
            assert "This cannot be shown" not in viewer.text()
    assert not viewer.complaints


def test_an_empty_installation_says_on_every_page_what_to_do_first(tmp_path: Path) -> None:
    with running_dashboard(tmp_path / "home") as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        for path in PAGES:
            viewer.look_at(path, f"empty-{path or 'progress'}")
            assert "make train" in viewer.text() or "make build-instruct" in viewer.text()
    assert not viewer.complaints


@pytest.mark.parametrize("dark", [False, True])
def test_every_part_of_every_page_shows_hostile_text_as_text(tmp_path: Path, dark: bool) -> None:
    make_installation(tmp_path / "home").dispose()
    with running_dashboard(tmp_path / "home") as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path, dark=dark)
        for name, path in EVERYTHING.items():
            look_for_harm(viewer, path, name)
            viewer.tab_through()
            assert viewer.unreached() == [], name
            if name in ("evaluations", "predictions"):
                assert HOSTILE_NAME in viewer.text()
                expect(viewer.page.get_by_test_id("stImage").first).to_be_visible()
        look_for_harm(viewer, f"instruct?set={HOSTILE_NAME}&view=Lineage of a row", "lineage")
        assert HOSTILE[:40] in viewer.text()
    assert not viewer.complaints


def test_who_signs_in_at_a_provider_sees_the_page_and_nobody_else_does(tmp_path: Path) -> None:
    make_installation(tmp_path / "home").dispose()
    port = free_port()
    (tmp_path / ".streamlit").mkdir()
    with running_provider() as provider:
        (tmp_path / ".streamlit/secrets.toml").write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\n'
            f'cookie_secret = "{"long" * 16}"\nclient_id = "{CLIENT}"\n'
            f'client_secret = "{SECRET}"\nserver_metadata_url = "{provider.discovery}"\n'
        )
        with running_dashboard(tmp_path / "home", port=port) as address, running_browser() as one:
            page = Viewer.with_browser(one, address, tmp_path).page
            page.goto(f"{address}/drafts")
            expect(page.get_by_role("button", name="Log in")).to_be_visible()
            assert HOSTILE_NAME not in page.content()
            expect(page.get_by_test_id("stImage")).to_have_count(0)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("link", name=BUTTON).click()
            page.wait_for_url(f"{address}/**")
            page.goto(f"{address}/drafts")
            expect(page.get_by_test_id("stImage").first).to_be_visible()
            page.screenshot(path=tmp_path / "signed-in.png")
            stranger = Viewer.with_browser(one, address, tmp_path).page
            stranger.goto(f"{address}/drafts")
            expect(stranger.get_by_role("button", name="Log in")).to_be_visible()
            expect(stranger.get_by_test_id("stImage")).to_have_count(0)
            forged = stranger.goto(f"{address}/oauth2callback?code=guessed&state=guessed")
            assert forged is not None
            stranger.goto(f"{address}/drafts")
            expect(stranger.get_by_role("button", name="Log in")).to_be_visible()


def test_every_page_stands_on_a_large_installation(tmp_path: Path) -> None:
    home = tmp_path / "home"
    database = open_database(load_settings(fakescope_home=home, database_url=None))
    images = make_images(LARGE.images)
    fill_database(database, load_recipe(), images, LARGE)
    database.dispose()
    write_set(home / "fakeinstruct", images, LARGE)
    with running_dashboard(home) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        for path in PAGES:
            look_for_harm(viewer, path, f"large-{path or 'progress'}")
        for name in ("clusters", "shortcuts", "queue", "reader"):
            look_for_harm(viewer, PARTS[name], f"large-{name}")
        assert "2,000,000" in viewer.text()
    assert not viewer.complaints
