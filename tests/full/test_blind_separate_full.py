"""`make annotate BLIND=separate`: a server for each expert, where nobody else gets in."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from annotation.server import INSTALL, Access, is_installed, read_access
from core.recipe import Recipe, load_recipe
from core.records import ImageRecord, Source, TaskKind
from core.settings import load_settings
from db.blind import guidance_among
from db.engine import Database, open_database
from db.images import images_by_id, save_images, save_source
from db.studio import projects, tasks_of
from db.tombstones import withdraw
from db.work import campaign_id_of
from imaging.store import ImageStore
from tests.brokers import skip_or_fail
from tests.e2e.commands import Command, project_with, running
from tests.e2e.project import Project
from tests.label_studio import make_picture
from tests.unit.records import make_tombstone

pytestmark = pytest.mark.full

EXPERTS = (1, 2)
IMAGES = 3


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three images, and a recipe that asks blind experts."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    made = project_with(tmp_path, {"drafting": {"blind": True}})
    settings = load_settings(fakescope_home=made.home)
    database, store = open_database(settings), ImageStore(settings.image_store)
    with database.write() as session:
        save_source(session, Source(name="mine", licence="CC0-1.0"))
        save_images(session, [mine(make_picture(store, n)) for n in range(IMAGES)])
    database.dispose()
    return made


def test_each_blind_expert_has_a_server_of_their_own(project: Project) -> None:
    arguments = ("serve", "--recipe", project.recipe, "--blind", "separate", "--experts", 2)
    with running(project, "annotation", *arguments) as serve:
        serve.wait_for("Ctrl-C stops it")
        accesses = {number: access_of(project, number) for number in (None, *EXPERTS)}
        assert_all_is_told(serve, accesses)
        for number in EXPERTS:
            assert len(tasks_at(accesses[number])) == IMAGES
        assert tasks_at(accesses[None]) == []
        assert_nobody_else_gets_in(accesses)

        for number in EXPERTS:
            for task in tasks_at(accesses[number]):
                label(accesses[number], task)
        pulled = project.run("annotation", "pull", "--recipe", project.recipe)
        assert (pulled.code, pulled.err) == (0, "")
        assert f"settled {IMAGES} images" in pulled.out
        assert_guidance_by_both(project)
        assert serve.stop(signal.SIGTERM) == 0
    for access in accesses.values():
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(access.url)

    with running(project, "annotation", "serve", "--recipe", project.recipe) as serve:
        serve.wait_for("Ctrl-C stops it")  # once separate, always separate
        assert "0 new tasks" in serve.said
        again = {number: access_of(project, number) for number in accesses}
        assert_all_is_told(serve, again)
        for number, access in again.items():
            assert (access.email, access.password) == (
                accesses[number].email,
                accesses[number].password,
            )
        withdraw_one(project)
        synced = project.run("annotation", "sync", "--recipe", project.recipe)
        assert "2 tasks of withdrawn images deleted" in synced.out
        assert serve.stop() == 0


def test_what_cannot_be_is_one_line(project: Project) -> None:
    separate = ("--blind", "separate")
    (project.home / "label-studio-1").mkdir(parents=True)
    (project.home / "label-studio-2").mkdir()
    (project.home / "label-studio-3").mkdir()
    for number in (1, 2, 3):
        (project.home / f"label-studio-{number}" / "access.json").write_text("{}")
    refused = {
        (*separate, "--experts", 2): "give EXPERTS=3 or more",
        ("--recipe", "recipes/fakescope", *separate): "asks for no blind labels",
    }
    for arguments, reason in refused.items():
        recipe = () if "--recipe" in arguments else ("--recipe", project.recipe)
        done = project.run("annotation", "serve", *recipe, *arguments)
        assert done.code == 2
        assert reason in done.err
        assert len(done.err.splitlines()) == 1


def access_of(project: Project, number: int | None) -> Access:
    access = read_access(project.home, booth=number)
    assert access is not None
    return access


def assert_all_is_told(serve: Command, accesses: dict[int | None, Access]) -> None:
    for access in accesses.values():
        for told in (access.url, access.email, access.password):
            assert told in serve.said
        assert access.token not in serve.said


def tasks_at(access: Access) -> list[dict[str, Any]]:
    """What the account of a server can see there of blind tasks."""
    found = []
    with api(access) as client:
        for project in client.get("/api/projects/").json()["results"]:
            if "blind" in project["title"]:
                asked = {"project": project["id"], "fields": "all"}
                found += client.get("/api/tasks/", params=asked).json()["tasks"]
    return found


def label(access: Access, task: dict[str, Any]) -> None:
    results = [
        chosen("verdict", "fake"),
        chosen("confidence", "high"),
        chosen("categories", "texture", "edge"),
    ]
    with api(access) as client:
        address = f"/api/tasks/{task['id']}/annotations/"
        client.post(address, json={"result": results}).raise_for_status()


def chosen(name: str, *choices: str) -> dict[str, Any]:
    parts = {"id": name, "from_name": name, "to_name": "image", "type": "choices"}
    return {**parts, "value": {"choices": list(choices)}}


def api(access: Access) -> httpx2.Client:
    headers = {"Authorization": f"Token {access.token}"}
    return httpx2.Client(base_url=access.url, headers=headers, timeout=120)


def assert_nobody_else_gets_in(accesses: dict[int | None, Access]) -> None:
    """Neither with what opens another server, nor by making an account."""
    one, other = accesses[1], accesses[2]
    assert httpx2.get(f"{one.url}/api/users/", headers=token(other)).status_code == 401
    assert is_let_in(one, one)
    assert not is_let_in(one, other)
    with httpx2.Client(base_url=one.url, headers={"Referer": one.url}) as stranger:
        stranger.get("/user/signup/")
        form = {"email": "stranger@example.com", "password": "correct-horse-battery"}
        form["csrfmiddlewaretoken"] = stranger.cookies["csrftoken"]
        assert stranger.post("/user/signup/", data=form).status_code == 403


def token(access: Access) -> dict[str, str]:
    return {"Authorization": f"Token {access.token}"}


def is_let_in(at: Access, who: Access) -> bool:
    with httpx2.Client(base_url=at.url, headers={"Referer": at.url}) as browser:
        browser.get("/user/login/")
        form = {"email": who.email, "password": who.password}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        browser.post("/user/login/", data=form)
        return browser.get("/api/current-user/whoami").status_code == 200


def records(project: Project) -> tuple[Database, Recipe]:
    settings = load_settings(fakescope_home=project.home)
    return open_database(settings), load_recipe(project.recipe)


def assert_guidance_by_both(project: Project) -> None:
    database, recipe = records(project)
    with database.read() as session:
        known = projects(session, campaign_id_of(recipe), kind=TaskKind.BLIND)
        image_ids = {t.image_id for p in known for t in tasks_of(session, p.project_key).values()}
        guidance = guidance_among(session, sorted(image_ids))
    assert {p.server for p in known} == {"own-1", "own-2"}
    assert len(guidance) == IMAGES
    for settled in guidance.values():
        assert settled.categories == ("edge", "texture")
        assert set(settled.experts) == {p.owner for p in known}
    database.dispose()


def withdraw_one(project: Project) -> None:
    database, recipe = records(project)
    with database.read() as session:
        (first, *_) = projects(session, campaign_id_of(recipe), kind=TaskKind.BLIND)
        image_id = next(iter(tasks_of(session, first.project_key).values())).image_id
        (image,) = images_by_id(session, [image_id]).values()
    withdraw(database, make_tombstone(image))
    database.dispose()


def mine(image: ImageRecord) -> ImageRecord:
    return replace(image, source="mine")
