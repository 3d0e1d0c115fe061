"""The annotation commands beside a real Label Studio: they outlive restarts, end when they are told
to, fail in one line, and never say a secret.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.interface import Form
from annotation.server import INSTALL, Access, is_installed, own_server
from annotation.webhook import HEADER
from tests.brokers import free_port, skip_or_fail
from tests.e2e.commands import Command, project_with, running, wait_until
from tests.e2e.project import OURS, Finished, Project
from tests.label_studio import Server, make_workplace
from tests.unit.annotation.test_studio import server as odd_server
from tests.unit.records import make_finding

pytestmark = pytest.mark.full

DRAFTS = 6
SOURCE = ("--source", "demo")


@dataclass
class House:
    """A home folder with drafts, and the server that runs from it."""

    project: Project
    access: Access | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.access = self._running.enter_context(own_server(self.project.home))

    def stop(self) -> None:
        self._running.close()

    def api(self) -> httpx2.Client:
        assert self.access is not None
        headers = {"Authorization": f"Token {self.access.token}"}
        return httpx2.Client(base_url=self.access.url, headers=headers, timeout=120)

    def hooks(self) -> list[dict[str, Any]]:
        with self.api() as client:
            found: list[dict[str, Any]] = client.get("/api/webhooks/").json()
        return found

    def answer(self) -> None:
        """The next review task that nobody has answered, as its draft says."""
        with self.api() as client:
            (project,) = (
                each
                for each in client.get("/api/projects/").json()["results"]
                if each["title"].startswith("FakeScope review")
            )
            shown = {"project": project["id"], "fields": "all"}
            tasks = client.get("/api/tasks/", params=shown).json()["tasks"]
            task = next(task for task in tasks if not task["annotations"])
            said = {"result": task["predictions"][0]["result"]}
            client.post(f"/api/tasks/{task['id']}/annotations/", json=said).raise_for_status()

    def counted(self) -> int:
        """Answers that were pulled and count."""
        done = self.project.run("annotation", "status", "--recipe", self.project.recipe, "--json")
        assert done.code == 0, done
        return int(json.loads(done.out)["annotations"].get("counted", 0))

    def run(self, *arguments: object) -> Finished:
        return self.project.run("annotation", *arguments, "--recipe", self.project.recipe)

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Command]:
        with running(
            self.project, "annotation", *arguments, "--recipe", self.project.recipe
        ) as command:
            yield command


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    exemplars = {"exemplars": {"fake": 1, "real": 0}}
    made = House(project_with(tmp_path, {"review": exemplars}))
    made.start()
    assert made.access is not None
    findings = [[make_finding()]] * DRAFTS
    server = Server(made.access.url, made.access.token)
    workplace = make_workplace(made.project.home, server, *findings)
    workplace.desk.studio.close()
    workplace.desk.database.dispose()
    yield made
    made.stop()


def test_a_watch_outlives_the_server_and_itself(house: House) -> None:
    watch = ("sync", *SOURCE, "--watch", 1)
    with house.running(*watch) as command:
        command.wait_for("new tasks")
        house.answer()
        wait_until(lambda: house.counted() == 1)
        house.stop()
        command.wait_for("does not answer")
        house.start()
        command.wait_for("it works again")
        house.answer()
        wait_until(lambda: house.counted() == 2)
        command.process.kill()
    with house.running(*watch) as command:
        house.answer()
        wait_until(lambda: house.counted() == 3)
        assert command.stop(signal.SIGTERM) == 0
        assert_ended_cleanly(command)
    with house.running(*watch) as command:
        command.wait_for("new tasks")
        assert command.stop(signal.SIGINT) == 0
        assert_ended_cleanly(command)


def test_a_webhook_outlives_the_server_and_itself(house: House) -> None:
    house.run("push", *SOURCE)
    webhook = ("webhook", "--every", 3600)  # whatever is pulled later, a call has brought about
    with house.running(*webhook) as command:
        wait_until(house.hooks)
        house.answer()
        wait_until(lambda: house.counted() == 1)
        house.stop()
        house.start()
        house.answer()
        wait_until(lambda: house.counted() == 2)
        (hook,) = {(each["url"], each["headers"][HEADER]) for each in house.hooks()}
        assert_calls_do_no_harm(house, *hook)
        command.process.kill()
    assert hook[1] not in command.said
    house.answer()  # while nobody listens
    with house.running(*webhook) as command:
        wait_until(lambda: house.counted() == 3)
        (again,) = {(each["url"], each["headers"][HEADER]) for each in house.hooks()}
        assert again != hook
        house.answer()
        wait_until(lambda: house.counted() == 4)
        assert command.stop(signal.SIGINT) == 0
        assert_ended_cleanly(command)
    assert house.hooks() == []
    log = (house.project.home / "label-studio" / "server.log").read_text(encoding="utf-8")
    for secret in (hook[1], again[1]):
        assert secret not in command.said + log


def assert_calls_do_no_harm(house: House, url: str, secret: str) -> None:
    """Twice, late, of tasks that never were, or from somebody who does not know the secret."""
    for headers, code in (({HEADER: secret}, 204), ({HEADER: secret[:-1]}, 403), ({}, 403)):
        for action in ("ANNOTATION_UPDATED", "ANNOTATION_CREATED", "ANNOTATION_CREATED"):
            said = {"action": action, "task": {"id": 10**9}}
            assert httpx2.post(url, headers=headers, json=said).status_code == code
    assert house.counted() == 2


def assert_ended_cleanly(command: Command) -> None:
    assert command.lines[-1] == "stopped"
    assert "Traceback" not in command.said


def test_ctrl_c_while_a_server_keeps_silent_ends_a_command_at_once(tmp_path: Path) -> None:
    project = project_with(tmp_path, {})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        project.environment |= at(address, KEYS[0])
        with running(project, "annotation", "pull", "--recipe", project.recipe) as pull:
            caller, _ = silent.accept()
            with caller:
                assert pull.stop(signal.SIGINT) == 130
    assert pull.said == "interrupted; what was finished is kept"


# Secrets


KEYS = ("0123456789abcdef-wrong-key", "aaaaaaaaaa.wrong-personal-key.cccccccccc")
ASKING = ("setup", "push", "pull", "sync", "adjudicate")
ALONE = ("status", "agreement", "quality", "chain", "exemplars")


def test_no_secret_is_said_and_each_failure_is_one_line(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.access is not None
    said = []
    with house.running("serve", *SOURCE) as serve:  # of this home folder one runs already
        serve.process.wait(300)
    assert "runs already at" in serve.said
    said.append(serve.said)

    for arguments in (("setup",), ("push", *SOURCE), ("pull", "--full"), ("sync", *SOURCE)):
        said.append(succeed(house, *arguments))
    house.answer()
    with house.running("webhook") as webhook:
        wait_until(house.hooks)
        secret = house.hooks()[0]["headers"][HEADER]
        wait_until(lambda: house.counted() == 1)
        webhook.stop()
    said.append(webhook.said)
    for command in ALONE:
        said.append(succeed(house, command, "--json"))
    said.append(succeed(house, "adjudicate"))
    export = ("export", "--out", tmp_path / "out", *SOURCE, "--min-review", "draft")
    said.append(succeed(house, *export))

    for variables, reason in failures(house):
        for command in ASKING:
            said.append(fail(house, command, variables, reason))
    with monkeypatch.context() as patch:
        refused = Form("<View><Choices name='a' toName='nothing'/></View>", "")
        patch.setattr("annotation.review.review_form", lambda _: refused)
        said.append(fail(house, "setup", {}, "refuses /api/projects/: 400"))
    said.append(fail(house, "preference", {}, "asks for no preferences"))
    unreachable = house.run("webhook", "--url", "http://10.0.0.1/")
    assert (unreachable.code, len(unreachable.err.splitlines())) == (2, 1)
    assert "may not call http://10.0.0.1/" in unreachable.err
    said.append(str(unreachable))

    kept = [*house.project.home.rglob("*.log")]
    kept += [path for path in (tmp_path / "out").rglob("*") if path.suffix != ".parquet"]
    said += [path.read_text(encoding="utf-8") for path in kept if path.is_file()]
    secrets = (house.access.token, house.access.password, secret, *KEYS)
    for text in said:
        for hidden in secrets:
            assert hidden not in text


def failures(house: House) -> Iterator[tuple[dict[str, str], str]]:
    """What may be wrong with a server, and what is said of it."""
    assert house.access is not None
    for key in KEYS:
        yield at(house.access.url, key), "refuses the key in LABEL_STUDIO_API_KEY"
    old = {"/api/version": (200, {"label-studio-os-package": {"version": "1.8.0"}})}
    with odd_server(old) as url:
        yield at(url, house.access.token), "runs Label Studio 1.8.0"
    yield {"LABEL_STUDIO_URL": house.access.url}, "give LABEL_STUDIO_API_KEY too"
    yield at(f"http://127.0.0.1:{free_port()}", house.access.token), "does not answer"


def at(url: str, key: str) -> dict[str, str]:
    return {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": key}


def succeed(house: House, *arguments: object) -> str:
    done = house.run(*arguments)
    assert done.code == 0, done
    return str(done)


def fail(house: House, command: str, variables: dict[str, str], reason: str) -> str:
    """What a command says that cannot do its work: one line."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OURS:
            patch.delenv(name, raising=False)
        words = [command, "--recipe", str(house.project.recipe)]
        done = CliRunner().invoke(app, words, env=house.project.variables() | variables)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert reason in line, line
    return str(done.output)
