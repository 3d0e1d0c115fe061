"""A real Label Studio for tests: the one in the environment, or one started for the session."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from annotation import push as pushing
from annotation.push import Desk, PushSummary
from annotation.server import INSTALL, is_installed, own_server
from annotation.studio import Studio
from core.ids import image_id_of, sha256_bytes
from core.recipe import load_recipe
from core.records import Draft, ImageRecord, Source, TraceFinding
from core.settings import load_settings
from db.engine import open_database
from db.images import save_images, save_source
from db.studio import StudioProject, projects, tasks_of
from db.work import add_work, open_campaign
from imaging.store import ImageStore
from tests.brokers import skip_or_fail
from tests.campaigns import store_draft
from tests.unit.records import make_image

PASSWORD = "correct-horse-battery"


@dataclass(frozen=True)
class Server:
    """A running server and a token of its owner."""

    url: str
    token: str

    @property
    def api_key(self) -> SecretStr:
        return SecretStr(self.token)


@dataclass(frozen=True)
class Account:
    """An expert's account."""

    email: str
    token: str
    user_id: int


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Label Studio server; each test makes projects of its own there."""
    if url := os.environ.get("TEST_LABEL_STUDIO_URL"):
        yield Server(url, os.environ["TEST_LABEL_STUDIO_API_KEY"])
        return
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    with own_server(tmp_path_factory.mktemp("label-studio")) as access:
        yield Server(access.url, access.token)


def sign_up(server: Server) -> Account:
    """Make an expert's account as an expert does: by the invitation."""
    email = f"expert-{uuid4().hex[:8]}@example.com"
    with httpx2.Client(base_url=server.url, headers={"Referer": server.url}) as browser:
        owner = {"Authorization": f"Token {server.token}"}
        invitation = browser.get("/api/invite", headers=owner).json()["invite_url"]
        browser.get(invitation)
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": _csrf(browser)}
        assert browser.post(invitation, data=form).status_code == 302
        token = browser.post("/api/token/", headers={"X-CSRFToken": _csrf(browser)}).json()["token"]
    with Studio(server.url, SecretStr(token)) as studio:
        return Account(email, token, studio.user_id)


def _csrf(browser: httpx2.Client) -> str:
    return browser.cookies["csrftoken"]


def api(server: Server, account: Account | None = None) -> httpx2.Client:
    """The server's interface as its owner, or as an expert, uses it."""
    authorization = f"Token {server.token}"
    if account is not None:
        refresh = {"refresh": account.token}
        answer = httpx2.post(f"{server.url}/api/token/refresh/", json=refresh)
        authorization = f"Bearer {answer.json()['access']}"
    return httpx2.Client(base_url=server.url, headers={"Authorization": authorization}, timeout=120)


@dataclass
class Workplace:
    """A home folder with drafts, and the server that shows them."""

    home: Path
    server: Server
    desk: Desk
    drafts: list[Draft]

    @property
    def project(self) -> StudioProject:
        """Our review project."""
        form_id = self.desk.form.form_id
        with self.desk.database.read() as session:
            (project,) = projects(session, self.desk.campaign_id, form_id=form_id)
        return project

    @property
    def project_id(self) -> int:
        assert self.project.project_id is not None
        return self.project.project_id

    def tasks(self) -> list[dict[str, Any]]:
        """What the server has, in the order of `drafts`."""
        with self.desk.database.read() as session:
            known = tasks_of(session, self.project.project_key)
        place = {draft.draft_id: number for number, draft in enumerate(self.drafts)}
        return sorted(
            self.desk.studio.tasks(self.project_id),
            key=lambda task: place[known[task["data"]["key"]].draft_id],
        )


def push(desk: Desk) -> PushSummary:
    """Push every draft, in silence."""
    return pushing.push(desk, report=lambda _done, _total: None)


def make_workplace(home: Path, server: Server, *findings: list[TraceFinding]) -> Workplace:
    """As many drafts as lists of findings, each of a small picture."""
    recipe = load_recipe()
    settings = load_settings(fakescope_home=home)
    database, store = open_database(settings), ImageStore(settings.image_store)
    images = [make_picture(store, number) for number in range(len(findings))]
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        save_images(session, images)
        campaign_id = open_campaign(session, recipe, ceiling_usd=None)
        add_work(session, campaign_id, "main", [image.image_id for image in images])
    images.sort(key=lambda image: image.image_id)
    drafts = [
        store_draft(database, campaign_id, image, *found)
        for image, found in zip(images, findings, strict=True)
    ]
    studio = Studio(server.url, server.api_key)
    desk = Desk(database=database, recipe=recipe, store=store, studio=studio)
    return Workplace(home, server, desk, drafts)


def make_picture(store: ImageStore, number: int) -> ImageRecord:
    """A picture unlike all others in the image store: 320 x 240 pixels, turned upright."""
    noise = np.random.default_rng(number).integers(0, 255, (32, 24, 3), dtype=np.uint8)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # shown a quarter turn clockwise
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((240, 320)).save(buffer, "JPEG", exif=orientation)
    data = buffer.getvalue()
    digest = sha256_bytes(data)
    return make_image(
        f"picture {number}",
        image_id=image_id_of(digest),
        sha256=digest,
        path=store.add(data, ".jpg"),
        width=320,
        height=240,
    )
