"""Every part of every page of the dashboard, light and dark, with hostile text everywhere."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from playwright.sync_api import expect

from benchmarks.seeded_installation import Size, fill_database, make_images, write_set
from core.recipe import load_recipe
from core.settings import load_settings
from dashboard.place import FRESH_SECONDS
from db.engine import open_database
from db.progress import campaigns
from db.work import claim, quarantine
from instruct_builder.shards import MANIFEST
from tests.brokers import free_port, skip_or_fail
from tests.campaigns import NOON
from tests.dashboards import ROOT, Viewer, look_for_harm, running_browser, running_dashboard
from tests.databases import create_tables, find_binaries, started_server
from tests.e2e.project import Finished, Project, make_project
from tests.installations import HOSTILE, HOSTILE_NAME, STUDIO, make_installation
from tests.oidc import BUTTON, CLIENT, SECRET, running_provider

pytestmark = pytest.mark.full

LARGE = Size(images=100_000, reviewed=1_000, rows_per_image=20)
PAGES = ("", "images", "drafts", "experts", "teachers", "instruct", "runs")
"""by address; the first page has none"""
PARTS = {
    "progress": f"?reason={HOSTILE[:40]}",
    "clusters": "images?view=Near-duplicates",
    "shortcuts": "images?view=Shortcuts",
    "provenance": "images?view=Provenance",
    "sent": "drafts?part=What the teacher was sent&fault=an expert edited it",
    "answered": "drafts?part=What it answered",
    "calls": "drafts?part=Calls and cost",
    "each-expert": "experts?view=Each expert",
    "queue": "experts?view=Adjudication queue",
    "flagged": "experts?view=Work that does not count",
    "study": "experts?view=Preference study",
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
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What `make build-instruct`, a short `make train`, and predictions leave."""
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
    return project


def finish(done: Finished) -> str:
    assert done.code == 0, done
    return done.out


@pytest.mark.parametrize("dark", [False, True])
def test_every_part_of_every_page_stands_on_the_demo(
    demo: Project, tmp_path: Path, dark: bool
) -> None:
    with running_dashboard(demo.home) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path, dark=dark)
        for name, path in EVERYTHING.items():
            look_for_harm(viewer, path, f"demo-{name}")
            assert "This cannot be shown" not in viewer.text()
    assert not viewer.complaints


def test_the_figures_are_those_of_the_commands(demo: Project, tmp_path: Path) -> None:
    asked = ("--recipe", demo.recipe, "--json")
    status, costs = (
        json.loads(finish(demo.run("generation", command, *asked)))
        for command in ("status", "costs")
    )
    manifest = json.loads((demo.shards / MANIFEST).read_text())
    with running_dashboard(demo.home) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at("", "progress")
        found = viewer.figures()
        assert found["Images"] == f"{status['images']['total']:,}"
        assert found["Set aside"] == f"{status['work'].get('quarantined', 0):,}"
        assert f"{status['work']['chained']:,} in FakeChain" in viewer.text()
        assert found["Spent"] == f"${costs['spending']['spent_usd']:,.2f}"
        viewer.look_at("teachers", "teachers")
        assert viewer.figures()["Forecast"] == f"${costs['forecast_usd']:,.4f}"
        viewer.look_at("instruct", "instruct")
        found = viewer.figures()
        assert found["Instructions"] == f"{manifest['rows']:,}"
        assert found["Images"] == f"{manifest['images']:,}"


def test_a_narrowed_view_is_sent_by_its_address_and_taken_home_as_a_file(
    demo: Project, tmp_path: Path
) -> None:
    with running_dashboard(demo.home) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        page = viewer.page
        viewer.look_at("images", "everything")
        choice = page.get_by_role("combobox", name="Label")
        choice.fill("fake")
        choice.press("Enter")
        page.wait_for_url("**label=fake**")
        viewer.settle()
        (number,) = re.findall(r"([\d,]+) images", viewer.text())
        colleague = Viewer.with_browser(browser, address, tmp_path)
        colleague.look_at(page.url.removeprefix(f"{address}/"), "the-same")
        assert colleague.text() == viewer.text()
        frames = []
        for kind, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
            with page.expect_download() as caught:
                page.get_by_role("button", name=kind, exact=False).click()
            frames.append(read(caught.value.path()))
        for frame in frames:
            assert len(frame) == int(number.replace(",", "")) > 0
            assert set(frame["label"]) == {"fake"}
        viewer.look_at("instruct?view=Reader", "reader")
        page.get_by_role("button", name="Where it comes from").first.click()
        page.wait_for_url("**row=ins-**")
        viewer.settle()
        assert {"step", "chain", "draft", "image"} <= {*viewer.cells()}
    assert not viewer.complaints


def test_what_goes_on_is_seen_without_looking_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    database = make_installation(home)
    run = home / "runs" / HOSTILE_NAME
    (run / "report.json").unlink()
    with running_dashboard(home) as address, running_browser() as browser:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at("", "before")
        assert viewer.figures()["Set aside"] == "3"
        with database.write() as session:
            (campaign,) = campaigns(session)
            (taken,) = claim(
                session,
                campaign.campaign_id,
                arms=["main"],
                worker="another",
                limit=1,
                seconds=60,
                now=NOON,
            )
            quarantine(session, taken.work_id, "cut off")
        place = [*viewer.figures()].index("Set aside")
        expect(viewer.page.get_by_test_id("stMetricValue").nth(place)).to_have_text("4")
        viewer.look_at("runs", "curves-before")
        expect(viewer.page.get_by_label("Training loss (3 steps)").first).to_be_visible()
        with (run / "metrics.jsonl").open("a") as file:
            file.write('ss": 0.5}\n')
        expect(viewer.page.get_by_label("Training loss (4 steps)").first).to_be_visible()
    database.dispose()
    assert not viewer.complaints


def test_a_database_that_goes_away_is_named(tmp_path: Path) -> None:
    binaries = find_binaries()
    if binaries is None:
        skip_or_fail("a PostgreSQL server", "apt-get install postgresql")
        return
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="postgresql-"))
        with started_server(binaries, Path(folder)) as server:
            url = server.render_as_string(hide_password=False)
            create_tables(load_settings(database_url=url))
            home = tmp_path / "home"
            address = stack.enter_context(running_dashboard(home, DATABASE_URL=url))
            browser = stack.enter_context(running_browser())
            viewer = Viewer.with_browser(browser, address, tmp_path)
            viewer.look_at("", "there")
            assert "make build-instruct" in viewer.text()
        viewer.page.wait_for_timeout((FRESH_SECONDS + 1) * 1000)
        for path in ("", "images", "drafts", "experts", "teachers"):
            viewer.look_at(path, f"gone-{path}")
            expect(viewer.page.get_by_text("This cannot be shown")).to_be_visible()
            assert "Traceback" not in viewer.text()
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
            if name in ("queue", "flagged"):
                cells = viewer.cells()
                assert f"{STUDIO}/projects/7/data?task=11" in cells
                assert not any(cell.startswith("javascript:") for cell in cells)
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
