"""A real Label Studio for tests: the one in the environment, or one started for the session."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
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
from annotation.desk import Desk
from annotation.interface import review_form
from annotation.mapping import Result
from annotation.push import PushSummary
from annotation.server import INSTALL, is_installed, own_server, shelf_of
from annotation.studio import Studio
from core.ids import image_id_of, sha256_bytes
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.records import Draft, ImageRecord, Source, TaskKind, TraceFinding
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
    shelf: Path | None = None
    """where it shows pictures from, when it is our own"""

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
    home = tmp_path_factory.mktemp("label-studio")
    with own_server(home) as access:
        yield Server(access.url, access.token, shelf_of(home))


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
    if account is None:
        owner = {"Authorization": f"Token {server.token}"}
        return httpx2.Client(base_url=server.url, headers=owner, timeout=120)
    return httpx2.Client(base_url=server.url, auth=_OfAccount(server, account), timeout=120)


class _OfAccount(httpx2.Auth):
    """Sends an expert's short-lived token, and gets another one when it has run out."""

    def __init__(self, server: Server, account: Account) -> None:
        self._renewal = f"{server.url}/api/token/refresh/"
        self._account = account
        self._authorization = self._renewed()

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = self._authorization
        response = yield request
        if response.status_code == 401:
            self._authorization = self._renewed()
            request.headers["Authorization"] = self._authorization
            yield request

    def _renewed(self) -> str:
        refresh = {"refresh": self._account.token}
        answer = httpx2.post(self._renewal, json=refresh, timeout=120)
        return f"Bearer {answer.json()['access']}"


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
        form_id = review_form(self.desk.recipe.taxonomy).form_id
        with self.desk.database.read() as session:
            (project,) = projects(session, self.desk.campaign_id, form_id=form_id)
        return project

    @property
    def project_id(self) -> int:
        assert self.project.project_id is not None
        return self.project.project_id

    def tasks(self) -> list[dict[str, Any]]:
        """What the server has of the drafts, in the order of `drafts`."""
        place = {draft.draft_id: number for number, draft in enumerate(self.drafts)}
        shown = [(s, task) for s, task in self.tasks_of(TaskKind.REVIEW) if s in place]
        return [task for _, task in sorted(shown, key=lambda item: place[item[0]])]

    def tasks_of(self, kind: TaskKind) -> list[tuple[str, dict[str, Any]]]:
        """What the server has of one kind, as experts get to see it, with what each is about."""
        found = []
        with self.desk.database.read() as session:
            for project in projects(session, self.desk.campaign_id, kind=kind):
                known = tasks_of(session, project.project_key)
                for task in self.desk.studio.tasks(project.project_id or 0):
                    found.append((known[task["data"]["key"]].subject_id, task))
        return found

    def add_drafts(self, *findings: Sequence[TraceFinding]) -> list[Draft]:
        """Further drafts, each of another picture; sorted by image id."""
        database, first = self.desk.database, len(self.drafts)
        images = [make_picture(self.desk.store, first + n) for n in range(len(findings))]
        with database.write() as session:
            save_source(session, Source(name="demo", licence="CC0-1.0"))
            save_images(session, images)
            campaign_id = open_campaign(session, self.desk.recipe, ceiling_usd=None)
            add_work(session, campaign_id, "main", [image.image_id for image in images])
        images.sort(key=lambda image: image.image_id)
        added = [
            store_draft(database, campaign_id, image, *found)
            for image, found in zip(images, findings, strict=True)
        ]
        self.drafts += added
        return added


def push(desk: Desk) -> PushSummary:
    """Push every draft, in silence."""
    return pushing.push(desk, report=lambda _done, _total: None)


def desk_of(home: Path, studio: Studio, recipe: Path = DEFAULT_RECIPE) -> Desk:
    """The desk that the commands have in this home folder."""
    settings = load_settings(fakescope_home=home, database_url=None)
    return Desk(
        database=open_database(settings),
        recipe=load_recipe(recipe),
        store=ImageStore(settings.image_store),
        studio=studio,
        shelf=shelf_of(home),
    )


def make_workplace(
    home: Path, server: Server, *findings: list[TraceFinding], recipe: Recipe | None = None
) -> Workplace:
    """As many drafts as lists of findings, each of a small picture."""
    settings = load_settings(fakescope_home=home)
    desk = Desk(
        database=open_database(settings),
        recipe=recipe or load_recipe(),
        store=ImageStore(settings.image_store),
        studio=Studio(server.url, server.api_key),
    )
    made = Workplace(home, server, desk, [])
    made.add_drafts(*findings)
    return made


def answer(
    workplace: Workplace, account: Account, task: Mapping[str, Any], **changes: Sequence[str]
) -> int:
    """An expert's annotation: the prediction, with the values of some controls changed."""
    results = changed(task["predictions"][0]["result"], changes)
    body = {"result": results, "lead_time": 7.5}
    with api(workplace.server, account) as client:
        made = client.post(f"/api/tasks/{task['id']}/annotations/", json=body)
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


def changed(results: Sequence[Result], changes: Mapping[str, Sequence[str]]) -> list[Result]:
    kinds = {"text": "textarea", "conclusion": "textarea", "comment": "textarea"}
    kept = [result for result in results if result["from_name"] not in changes]
    for name, values in changes.items():
        is_text = "text" in name or name in kinds
        kind, key = ("textarea", "text") if is_text else ("choices", "choices")
        if values:
            kept.append(
                {"id": f"new-{name}", "from_name": name, "to_name": "image", "type": kind,
                 "value": {key: list(values)}}
            )  # fmt: skip
    return kept


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
