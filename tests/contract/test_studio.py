"""Drafts to a real Label Studio and answers back."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from annotation.chains import chain_drafts
from annotation.desk import Desk
from annotation.interface import Form
from annotation.projects import opened_projects
from annotation.pull import pull
from annotation.server import INSTALL, is_installed, own_server
from annotation.standing import standing
from annotation.studio import Studio
from core.errors import ConfigError
from core.records import (
    AnnotationFate,
    Authenticity,
    Confidence,
    Correction,
    ReviewLevel,
    TaskKind,
    TraceOutcome,
)
from db.images import images_by_id
from db.reviews import corrections
from db.studio import projects
from tests.brokers import free_port, skip_or_fail
from tests.e2e.commands import running
from tests.e2e.project import make_project
from tests.label_studio import (
    Account,
    Server,
    Workplace,
    answer,
    api,
    changed,
    make_workplace,
    push,
    sign_up,
)
from tests.unit.records import make_finding

HOSTILE = (
    '<script>document.title="ran"</script> {{idx}} $image {% x %} \u202eright \x07 <b>&amp;</b>'
)
COUNTED, DELETED = AnnotationFate.COUNTED, AnnotationFate.DELETED


@pytest.fixture(scope="module")
def experts(studio_server: Server) -> tuple[Account, Account]:
    return sign_up(studio_server), sign_up(studio_server)


@pytest.fixture
def workplace(studio_server: Server, tmp_path: Path) -> Iterator[Workplace]:
    """Three drafts of three findings each, pushed."""
    findings = [make_finding("texture"), make_finding("edge"), make_finding("clarity")]
    made = make_workplace(tmp_path, studio_server, findings, findings, findings)
    push(made.desk)
    yield made
    made.desk.studio.close()
    made.desk.database.dispose()


def counting(workplace: Workplace, number: int = 0) -> list[Correction]:
    image_id = workplace.drafts[number].image_id
    with workplace.desk.database.read() as session:
        return corrections(session, [image_id]).get(image_id, [])


def task_of_draft(workplace: Workplace, number: int = 0) -> dict[str, Any]:
    return workplace.tasks()[number]


# Push


def test_a_push_makes_each_task_once_and_shows_the_draft(workplace: Workplace) -> None:
    again = push(workplace.desk)
    assert (again.made, again.found, again.refused) == (0, 0, {})
    tasks = workplace.tasks()
    assert len(tasks) == 3
    for task in tasks:
        assert set(task["data"]) == {"image", "key", "traces"}
        assert len(task["predictions"]) == 1
    project = workplace.desk.studio.project(workplace.project_id)
    assert project is not None
    assert project["model_version"] == "draft"
    assert project["show_collab_predictions"]


def test_a_task_tells_nothing_of_where_its_picture_comes_from(workplace: Workplace) -> None:
    with workplace.desk.database.read() as session:
        images = images_by_id(session, [draft.image_id for draft in workplace.drafts])
    shown = str([task["data"] for task in workplace.tasks()])
    for image in images.values():
        for secret in (image.image_id, image.sha256, str(image.generator), image.source):
            assert secret not in shown


def test_the_picture_is_served_to_experts_alone(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    address = task_of_draft(workplace)["data"]["image"]
    with api(workplace.server, experts[0]) as expert:
        assert expert.get(address).content.startswith(b"\xff\xd8")
    assert httpx2.get(workplace.server.url + address).status_code == 401


class Mortal(Studio):
    """A connection that dies before or after its n-th request that changes something."""

    def __init__(self, server: Server, *, lives: int, after: bool) -> None:
        self.lives, self.after = lives, after
        super().__init__(server.url, server.api_key)

    def _try(self, method: str, path: str, **request: Any) -> httpx2.Response:
        self.lives -= method != "GET"
        dies = self.lives == 0 and method != "GET"
        if dies and not self.after:
            raise KeyboardInterrupt
        response = super()._try(method, path, **request)
        if dies:
            raise KeyboardInterrupt
        return response


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_push_killed_at_any_request_is_taken_up_without_duplicates(
    studio_server: Server, tmp_path: Path, after: bool
) -> None:
    made = make_workplace(tmp_path, studio_server, [make_finding()], [], [make_finding("edge")])
    kills = 0
    for lives in range(1, 20):
        mortal = Mortal(studio_server, lives=lives, after=after)
        desk = Desk(
            database=made.desk.database,
            recipe=made.desk.recipe,
            store=made.desk.store,
            studio=mortal,
        )
        try:
            push(desk)
        except KeyboardInterrupt:
            kills += 1
        else:
            break
    assert kills >= 3
    tasks = made.tasks()
    assert len(tasks) == len({task["data"]["key"] for task in tasks}) == 3
    assert push(made.desk).made == 0
    assert made.desk.studio.task_ids(made.project_id).keys() == {t["data"]["key"] for t in tasks}


def test_a_draft_whose_picture_is_missing_is_set_aside(
    studio_server: Server, tmp_path: Path
) -> None:
    made = make_workplace(tmp_path, studio_server, [make_finding()], [make_finding()])
    next((tmp_path / "images").rglob("*.jpg")).unlink()
    summary = push(made.desk)
    assert summary.made == 1
    (reason,) = summary.refused.values()
    assert "not in the image store" in reason
    assert push(made.desk).refused == {}


def test_a_full_project_is_followed_by_another(
    studio_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotation.projects.TASKS_PER_PROJECT", 2)
    made = make_workplace(tmp_path, studio_server, [], [make_finding()], [])
    assert push(made.desk).made == 3
    assert push(made.desk).made == 0
    with made.desk.database.read() as session:
        opened = projects(session, made.desk.campaign_id, kind=TaskKind.REVIEW)
    counts = [len(made.desk.studio.task_ids(project.project_id or 0)) for project in opened]
    assert counts == [2, 1]


def test_another_form_gets_a_project_of_its_own_and_the_old_one_is_worked_on(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    old, taxonomy = workplace.project_id, workplace.desk.recipe.taxonomy
    fewer = taxonomy.model_copy(update={"categories": taxonomy.categories[:-1]})
    recipe = workplace.desk.recipe.model_copy(update={"taxonomy": fewer})
    first = task_of_draft(workplace)
    workplace.add_drafts([make_finding()])
    workplace.desk = replace(workplace.desk, recipe=recipe)
    assert push(workplace.desk).made == 1
    assert workplace.project_id != old
    assert len(workplace.desk.studio.task_ids(old)) == 3
    assert len(workplace.desk.studio.task_ids(workplace.project_id)) == 1
    opened = [project.project_id for project in opened_projects(workplace.desk)]
    assert opened == [workplace.project_id, old]
    answer(workplace, experts[0], first)
    assert pull(workplace.desk).new == {COUNTED: 1}


def test_hostile_text_of_a_draft_is_kept_exactly(studio_server: Server, tmp_path: Path) -> None:
    texts = [HOSTILE, "x" * 1_000_000]
    findings = [make_finding("texture", evidence=text) for text in texts]
    made = make_workplace(tmp_path, studio_server, findings)
    push(made.desk)
    (task,) = made.tasks()
    assert [trace["text"] for trace in task["data"]["traces"]] == texts


# Pull


def test_an_answer_becomes_a_correction_and_a_chain(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    answer(
        workplace,
        experts[0],
        task_of_draft(workplace),
        text_0=[],  # the form hides the text of an accepted trace
        verdict_1=["edit"],
        text_1=[f"The edges ring. {HOSTILE}"],
        verdict_2=["reject"],
        added_category_1=["anatomy"],
        added_text_1=["The hand has six fingers."],
        conclusion=["Edges and a hand give it away."],
        confidence=["low"],
        comment=["for the team"],
    )
    assert pull(workplace.desk).new == {COUNTED: 1}
    (said,) = counting(workplace)
    assert said.expert == "expert-1"
    assert said.outcomes == (
        TraceOutcome.ACCEPTED,
        TraceOutcome.EDITED,
        TraceOutcome.REJECTED,
        TraceOutcome.ADDED,
    )
    assert said.reasoning.findings == (
        make_finding("texture"),
        make_finding("edge", evidence=f"The edges ring. {HOSTILE}"),
        make_finding("anatomy", evidence="The hand has six fingers."),
    )
    assert said.reasoning.conclusion == "Edges and a hand give it away."
    assert said.reasoning.confidence is Confidence.LOW
    assert said.reasoning.verdict is Authenticity.FAKE
    assert chain_drafts(workplace.desk.database, workplace.desk.recipe).by_level == {
        ReviewLevel.EXPERT: 1,
        ReviewLevel.DRAFT: 2,
    }
    assert pull(workplace.desk, full=True).new == {}


def test_a_later_version_counts_and_the_earlier_one_is_kept(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    task = task_of_draft(workplace)
    annotation = answer(workplace, experts[0], task)
    pull(workplace.desk)
    change(workplace, experts[0], annotation, task, verdict_0=["reject"])
    assert pull(workplace.desk).new == {COUNTED: 1}
    (said,) = counting(workplace)
    assert said.version == 2
    assert said.outcomes[0] is TraceOutcome.REJECTED


def test_what_somebody_else_wrote_over_an_answer_is_nobodys_word(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    task = task_of_draft(workplace)
    annotation = answer(workplace, experts[0], task)
    pull(workplace.desk)
    change(workplace, experts[1], annotation, task, verdict_0=["reject"])
    assert pull(workplace.desk).new == {AnnotationFate.OVERWRITTEN: 1}
    (said,) = counting(workplace)
    assert said.outcomes[0] is TraceOutcome.ACCEPTED
    (flag,) = standing(workplace.desk.database, workplace.desk.recipe).flags
    assert (flag.fate, flag.expert) == (AnnotationFate.OVERWRITTEN, "expert-1")


def change(
    workplace: Workplace,
    account: Account,
    annotation: int,
    task: Mapping[str, Any],
    **changes: Sequence[str],
) -> None:
    results = changed(task["predictions"][0]["result"], changes)
    with api(workplace.server, account) as client:
        done = client.patch(f"/api/annotations/{annotation}/", json={"result": results})
    assert done.status_code == 200, done.text


def test_a_deleted_answer_counts_no_longer(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    annotations = [answer(workplace, experts[0], task) for task in workplace.tasks()[:2]]
    pull(workplace.desk)
    with api(workplace.server, experts[0]) as client:
        assert client.delete(f"/api/annotations/{annotations[0]}/").status_code == 204
    assert pull(workplace.desk).new == {DELETED: 1}
    assert counting(workplace, 0) == []
    assert len(counting(workplace, 1)) == 1
    assert pull(workplace.desk, full=True).new == {}


def test_a_deleted_task_is_noticed_and_made_again(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    task = task_of_draft(workplace)
    answer(workplace, experts[0], task)
    pull(workplace.desk)
    with api(workplace.server) as owner:
        assert owner.delete(f"/api/tasks/{task['id']}/").status_code == 204
    summary = pull(workplace.desk)
    assert summary.lost_tasks == 1
    assert summary.new == {DELETED: 1}
    assert counting(workplace) == []
    assert push(workplace.desk).made == 1
    assert len(workplace.tasks()) == 3


def test_a_skipped_task_takes_back_what_was_said(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    annotation = answer(workplace, experts[0], task_of_draft(workplace))
    pull(workplace.desk)
    with api(workplace.server, experts[0]) as client:
        client.patch(f"/api/annotations/{annotation}/", json={"was_cancelled": True})
    assert pull(workplace.desk).new == {AnnotationFate.SKIPPED: 1}
    assert counting(workplace) == []


def test_an_answer_that_contradicts_itself_is_set_aside_with_the_reason(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    answer(workplace, experts[0], task_of_draft(workplace), no_trace=["no visible trace"])
    assert pull(workplace.desk).new == {AnnotationFate.UNREADABLE: 1}
    assert counting(workplace) == []
    (flag,) = standing(workplace.desk.database, workplace.desk.recipe).flags
    assert "no visible trace" in str(flag.reason)


def test_two_experts_who_agree_make_an_agreed_chain(
    workplace: Workplace, experts: tuple[Account, Account]
) -> None:
    for expert in experts:
        answer(workplace, expert, task_of_draft(workplace))
    pull(workplace.desk)
    assert [said.expert for said in counting(workplace)] == ["expert-1", "expert-2"]
    levels = chain_drafts(workplace.desk.database, workplace.desk.recipe).by_level
    assert levels[ReviewLevel.AGREED] == 1


# What is wrong is said in one line, without the token


def test_a_bad_token_is_refused_in_one_line(studio_server: Server) -> None:
    for secret in ("not-the-token", "aaaa.bbbb.cccc"):
        with pytest.raises(ConfigError, match="LABEL_STUDIO_API_KEY") as error:
            Studio(studio_server.url, SecretStr(secret))
        assert secret not in str(error.value)


def test_another_servers_project_is_not_taken_for_ours(workplace: Workplace) -> None:
    change_title = {"title": "something else"}
    with api(workplace.server) as owner:
        owner.patch(f"/api/projects/{workplace.project_id}/", json=change_title)
    for step in (push, pull):
        with pytest.raises(ConfigError, match="renamed"):
            step(workplace.desk)


def test_a_form_that_the_server_refuses_is_a_configuration_error(workplace: Workplace) -> None:
    with pytest.raises(ConfigError, match="refuses"):
        workplace.desk.studio.make_project("wrong", Form("<View><Choices name='a'/></View>", ""))


# Our own server


@pytest.mark.full
def test_our_own_server_comes_back_as_it_was(tmp_path: Path) -> None:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    with own_server(tmp_path) as before:
        made = make_workplace(tmp_path, Server(before.url, before.token), [make_finding()])
        push(made.desk)
        expert = sign_up(made.server)
        made.desk.studio.close()
        with pytest.raises(ConfigError, match="runs already"), own_server(tmp_path):
            pass
    folder = tmp_path / "label-studio"
    for path in (folder, folder / "access.json"):
        assert path.stat().st_mode & 0o077 == 0
    assert before.token not in (folder / "server.log").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="does not answer"):
        Studio(before.url, before.api_key)

    with own_server(tmp_path, port=free_port()) as again:
        assert (again.email, again.password, again.token) == (
            before.email,
            before.password,
            before.token,
        )
        made.server = Server(again.url, again.token)
        with Studio(again.url, again.api_key, server=made.desk.studio.server) as studio:
            made.desk = replace(made.desk, studio=studio)
            assert push(made.desk).made == 0
            answer(made, expert, task_of_draft(made))
            assert pull(made.desk).new == {COUNTED: 1}


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port} is taken"),
            own_server(tmp_path, port=port),
        ):
            pass


def test_annotate_ends_with_an_error_when_its_server_dies(tmp_path: Path) -> None:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    project = make_project(tmp_path)
    with running(project, "annotation", "serve", "--recipe", project.recipe) as serve:
        serve.wait_for("Ctrl-C stops it")
        pid = serve.process.pid
        (server,) = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        os.kill(int(server), signal.SIGKILL)
        assert serve.process.wait(30) == 1
    said = serve.lines[-1]
    assert said.startswith("error: Label Studio at http://127.0.0.1:"), serve.said
    assert "has ended (signal 9): see" in said
    assert "Traceback" not in serve.said
