"""The dashboard in a real browser, small: with nothing, with hostile text, broken, and locked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import create_engine, text

from core.settings import load_settings
from dashboard import show
from db.engine import open_database
from instruct_builder.shards import MANIFEST
from tests.dashboards import Viewer, look_for_harm, running_browser, running_dashboard
from tests.installations import HOSTILE, HOSTILE_NAME, make_installation, make_shards


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as started:
        yield started


def test_an_empty_installation_says_what_to_do_first(browser: Browser, tmp_path: Path) -> None:
    with running_dashboard(tmp_path / "home", STREAMLIT_SERVER_ADDRESS="0.0.0.0") as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at("", "empty-progress")
        assert "make build-instruct" in viewer.text()
    assert not viewer.complaints
    assert not (tmp_path / "home").exists()  # it looks and makes nothing


def test_a_hostile_draft_is_shown_as_text_and_read_by_keyboard(
    browser: Browser, tmp_path: Path
) -> None:
    make_installation(tmp_path / "home").dispose()
    with running_dashboard(tmp_path / "home") as address:
        viewer = Viewer.with_browser(browser, address, tmp_path, dark=True)
        look_for_harm(viewer, "drafts", "drafts")
        assert HOSTILE[:40] in viewer.text()
        expect(viewer.page.get_by_test_id("stImage").first).to_be_visible()
        cells = viewer.cells()
        assert {"image", "label", "generator", "verdict"} <= {*cells}
        assert {"real", "fake", "sim-nearest", show.cell(HOSTILE)} <= {*cells}
        stops = viewer.tab_through()
        assert {"Progress", "Campaign", "Download as CSV: Table: drafts"} <= {*stops}
        assert viewer.unreached() == []
        viewer.page.evaluate("document.body.append(document.createElement('button'))")
        assert viewer.nameless() == ["button"]  # the checks can fail
        assert viewer.unreached() == ["BUTTON"]
    assert not viewer.complaints


@pytest.mark.full
def test_what_is_broken_is_named_without_a_traceback(browser: Browser, tmp_path: Path) -> None:
    home = tmp_path / "home"
    open_database(load_settings(fakescope_home=home, database_url=None)).dispose()
    with create_engine(f"sqlite:///{home / 'fakescope.db'}").begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    make_shards(home / "fakeinstruct")
    (home / "fakeinstruct" / MANIFEST).unlink()
    with running_dashboard(home) as address:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at("", "old-schema")
        assert "python -m db upgrade" in viewer.text()
        viewer.look_at("instruct", "half-written")
        assert f"it has no {MANIFEST}" in viewer.text()
    nobody = "postgresql://nobody:secret@127.0.0.1:1/none"
    with running_dashboard(home, DATABASE_URL=nobody) as address:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at("drafts", "away")
        assert "cannot be reached" in viewer.text()
        assert "secret" not in viewer.text()
        assert "Traceback" not in viewer.text()
    assert not viewer.complaints


def test_nobody_sees_a_page_before_the_login_that_is_configured(
    browser: Browser, tmp_path: Path
) -> None:
    make_installation(tmp_path / "home").dispose()
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit/secrets.toml").write_text(
        '[auth]\nredirect_uri = "http://127.0.0.1/oauth2callback"\ncookie_secret = "long"\n'
        'client_id = "one"\nclient_secret = "two"\n'
        'server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"\n'
    )
    with running_dashboard(tmp_path / "home") as address:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        for path in ("drafts", "runs?view=Predictions"):
            viewer.page.goto(f"{address}/{path}")
            if find_spec("authlib") is None:
                expect(viewer.page.get_by_text("make setup EXTRAS")).to_be_visible()
            else:
                expect(viewer.page.get_by_role("button", name="Log in")).to_be_visible()
            assert viewer.page.get_by_test_id("stImage").count() == 0
            assert HOSTILE_NAME not in viewer.text()
            assert "Images" not in viewer.text()
