"""Both sides kept together, against a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from annotation.pull import pull
from annotation.sync import SyncSummary, sync
from annotation.webhook import HEADER, receiving
from core.errors import ConfigError
from core.records import AnnotationFate, ReviewLevel
from db.images import images_by_id
from db.tombstones import withdraw
from tests.label_studio import (
    Account,
    Server,
    Workplace,
    answer,
    api,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding, make_tombstone

COUNTED, DELETED = AnnotationFate.COUNTED, AnnotationFate.DELETED


@pytest.fixture(scope="module")
def expert(studio_server: Server) -> Account:
    return sign_up(studio_server)


@pytest.fixture
def workplace(
    studio_server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Workplace]:
    """Three drafts, not yet pushed; pictures on the shelf of our own server, or uploaded."""
    made = make_workplace(tmp_path, studio_server, [make_finding()], [make_finding("edge")], [])
    if getattr(request, "param", "shelf") == "shelf":
        if studio_server.shelf is None:
            pytest.skip("the server of TEST_LABEL_STUDIO_URL is not on this machine")
        made.desk = replace(made.desk, shelf=studio_server.shelf)
    yield made
    made.desk.studio.close()
    made.desk.database.dispose()


either_way = pytest.mark.parametrize("workplace", ["shelf", "uploads"], indirect=True)


def take_round(workplace: Workplace, **options: Any) -> SyncSummary:
    return sync(workplace.desk, report=lambda _done, _total: None, **options)


def picture_of(workplace: Workplace, task: dict[str, Any], account: Account) -> httpx2.Response:
    with api(workplace.server, account) as client:
        return client.get(task["data"]["image"])


def test_a_round_brings_drafts_there_and_answers_back(
    workplace: Workplace, expert: Account
) -> None:
    assert take_round(workplace).pushed.made == 3
    answer(workplace, expert, workplace.tasks()[0])
    summary = take_round(workplace, full=False)
    assert summary.pulled.new == {COUNTED: 1}
    assert summary.chains.by_level == {ReviewLevel.EXPERT: 1, ReviewLevel.DRAFT: 2}
    assert not take_round(workplace).is_news


def test_experts_alone_see_pictures_and_no_name(workplace: Workplace, expert: Account) -> None:
    take_round(workplace)
    with workplace.desk.database.read() as session:
        images = images_by_id(session, [draft.image_id for draft in workplace.drafts])
    for task, draft in zip(workplace.tasks(), workplace.drafts, strict=True):
        image = images[draft.image_id]
        data = workplace.desk.store.read(image.path)
        assert picture_of(workplace, task, expert).content == data
        anonymous = httpx2.get(workplace.server.url + task["data"]["image"])
        assert data not in anonymous.content
        assert anonymous.status_code in (401, 403)
        assert image.sha256[:8] not in task["data"]["image"]


def test_the_shelf_shows_nothing_else_of_this_machine(
    workplace: Workplace, expert: Account
) -> None:
    take_round(workplace)
    with api(workplace.server, expert) as client:
        for place in ("../access.json", "pictures/../../access.json", "/etc/passwd", "../.env"):
            found = client.get("/data/local-files/", params={"d": place})
            assert found.status_code >= 400
            assert workplace.server.token not in found.text


@either_way
def test_a_withdrawn_image_leaves_the_server_and_does_not_come_back(
    workplace: Workplace, expert: Account
) -> None:
    take_round(workplace)
    gone, *others = workplace.tasks()
    answer(workplace, expert, gone)
    assert take_round(workplace, full=False).chains.by_level[ReviewLevel.EXPERT] == 1
    with workplace.desk.database.read() as session:
        image = images_by_id(session, [workplace.drafts[0].image_id])
    withdraw(workplace.desk.database, make_tombstone(image[workplace.drafts[0].image_id]))

    summary = take_round(workplace, full=False)

    assert (summary.removed, summary.pushed.made) == (1, 0)
    assert summary.chains.by_level == {ReviewLevel.DRAFT: 2}
    there = {task["id"] for task in workplace.desk.studio.tasks(workplace.project_id)}
    assert there == {task["id"] for task in others}
    assert picture_of(workplace, gone, expert).status_code in (404, 500)
    assert picture_of(workplace, others[0], expert).status_code == 200
    again = take_round(workplace)
    assert (again.removed, again.pushed.made, again.pulled.lost_tasks) == (0, 0, 0)


def test_what_was_withdrawn_before_its_task_was_made_is_never_shown(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # killed after keys were given
        patch.setattr("annotation.push._Push.deliver", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            push(workplace.desk)
    with workplace.desk.database.read() as session:
        (image,) = images_by_id(session, [workplace.drafts[0].image_id]).values()
    withdraw(workplace.desk.database, make_tombstone(image))
    assert take_round(workplace).pushed.made == 2


def test_a_deletion_that_a_new_answer_hides_is_found_by_a_full_round(
    workplace: Workplace, expert: Account
) -> None:
    take_round(workplace)
    first, second, _ = workplace.tasks()
    annotation = answer(workplace, expert, first)
    take_round(workplace, full=False)
    with api(workplace.server, expert) as client:
        client.delete(f"/api/annotations/{annotation}/")
    answer(workplace, expert, second)
    assert take_round(workplace, full=True).pulled.new == {COUNTED: 1, DELETED: 1}


def test_an_answer_that_the_server_cannot_spell_hides_no_other(
    workplace: Workplace, expert: Account
) -> None:
    take_round(workplace)
    first, second, third = workplace.tasks()
    lone = (
        '{"result": [{"from_name": "comment", "type": "textarea", "value": {"text": "\\ud800"}}]}'
    )
    with api(workplace.server, expert) as client:
        kind = {"Content-Type": "application/json"}
        client.post(f"/api/tasks/{second['id']}/annotations/", content=lone, headers=kind)
    answer(workplace, expert, first)
    answer(workplace, expert, third)
    for full in (False, True):
        summary = take_round(workplace, full=full)
        assert list(summary.pulled.failed_tasks) == [second["id"]]
        assert summary.pulled.new == ({} if full else {COUNTED: 2})
        assert summary.pulled.lost_tasks == 0


def test_a_webhook_is_a_hint_within_seconds(workplace: Workplace, expert: Account) -> None:
    studio = workplace.desk.studio
    take_round(workplace)
    with receiving("127.0.0.1", 0) as receiver:
        for _ in range(2):
            studio.set_webhook(
                workplace.project_id, receiver.url, header=HEADER, secret=receiver.secret
            )
        answer(workplace, expert, workplace.tasks()[0])
        assert receiver.hint.wait(10)
        assert pull(workplace.desk).new == {COUNTED: 1}
        studio.delete_webhook(workplace.project_id, header=HEADER)
        receiver.hint.clear()
        answer(workplace, expert, workplace.tasks()[1])
        assert not receiver.hint.wait(1.5)


def test_the_webhook_of_an_earlier_receiver_is_replaced(workplace: Workplace) -> None:
    studio = workplace.desk.studio
    take_round(workplace)
    for port, secret in ((1, "old"), (2, "new")):
        url = f"http://127.0.0.1:{port}/"
        studio.set_webhook(workplace.project_id, url, header=HEADER, secret=secret)
    with api(workplace.server) as owner:
        (hook,) = owner.get("/api/webhooks/", params={"project": workplace.project_id}).json()
    assert (hook["url"], hook["headers"]) == ("http://127.0.0.1:2/", {HEADER: "new"})
    assert not hook["send_payload"]


def test_an_address_that_the_server_may_not_call_is_refused_with_the_remedy(
    workplace: Workplace,
) -> None:
    take_round(workplace)
    with pytest.raises(ConfigError, match=r"USE_DEFAULT_BANNED_SUBNETS=false.*--url") as error:
        workplace.desk.studio.set_webhook(
            workplace.project_id, "http://10.0.0.1/", header=HEADER, secret="a-secret"
        )
    assert "a-secret" not in str(error.value)
