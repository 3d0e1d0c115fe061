"""The edge to a Label Studio server: the few calls of its HTTP interface that we need.

No call that makes something is ever repeated here: the server has no idempotency key, so the caller
looks for what a lost answer has made. The access token is sent and never shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import httpx2
from pydantic import SecretStr

from annotation.interface import Form
from core.errors import ConfigError, PermanentError, TransientError

OLDEST: Final = (1, 23)
"""the first version that this was tried with"""
PAGE: Final = 100
BY_ID: Final = ["tasks:id"]
TIMEOUT_S: Final = 120.0
CONNECT_TIMEOUT_S: Final = 10.0
SNAPSHOT_S: Final = 600.0
POLL_S: Final = 0.5
ALL_ANNOTATIONS: Final = {"usual": True, "ground_truth": True, "skipped": True}
HINTS: Final = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_DELETED")
"""actions after which there may be something to pull"""
WEBHOOKS: Final = "/api/webhooks/"


class Unreachable(ConfigError):
    """No server answers at the address; it may do so later."""


class ServerFailed(TransientError):
    """The server answered that it failed."""


class Studio:
    """A server that was seen to answer and to accept the key."""

    def __init__(self, url: str, api_key: SecretStr, *, server: str | None = None) -> None:
        """`server` is how we remember it; by default its address."""
        self.url = url.rstrip("/")
        self.server = server or self.url
        self._api_key = api_key
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx2.Client(base_url=self.url, timeout=timeout)
        try:
            self._check_version()
            self._authorise()
            self.user_id = int(self._get("/api/current-user/whoami")["id"])
        except TransientError as error:
            self.close()
            raise Unreachable(f"{error}: start the server, or correct LABEL_STUDIO_URL") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def user_ids(self) -> list[int]:
        """Everybody who has an account and may work, in the order in which they came."""
        users = self._get("/api/users/")
        return sorted(int(user["id"]) for user in users if user.get("is_active", True))

    # Projects

    def project(self, project_id: int) -> dict[str, Any] | None:
        """A project; None when there is none."""
        found: dict[str, Any] | None = self._find(f"/api/projects/{project_id}/")
        return found

    def find_project(self, title: str) -> int | None:
        """The id of the project with exactly this title."""
        query = {"page_size": 1000, "title": title, "include": "id,title"}
        found = self._get("/api/projects/", **query)["results"]
        return next((int(item["id"]) for item in found if item["title"] == title), None)

    def make_project(self, title: str, form: Form) -> int:
        """Make a project; ConfigError when the server refuses the form."""
        project = {
            "title": title,
            "label_config": form.config,
            "expert_instruction": form.instructions,
            "show_instruction": bool(form.instructions),
            "show_collab_predictions": True,
        }
        return int(self._call("POST", "/api/projects/", json=project)["id"])

    def show_predictions_of(self, project_id: int, model_version: str) -> None:
        """Without this the project goes on showing the version that it saw first."""
        change = {"model_version": model_version}
        self._call("PATCH", f"/api/projects/{project_id}/", json=change)

    def invitation(self) -> str:
        """The address at which another expert makes an account."""
        return f"{self.url}{self._get('/api/invite')['invite_url']}"

    # Tasks

    def upload_pictures(
        self, project_id: int, pictures: Mapping[str, tuple[bytes, str]]
    ) -> dict[str, str]:
        """Store pictures (bytes, media type) by file name; returns the address of each."""
        parts = [(name, (name, data, kind)) for name, (data, kind) in pictures.items()]
        made = self._call(
            "POST", f"/api/projects/{project_id}/import", files=parts, commit_to_project="false"
        )
        ids = json.dumps(made["file_upload_ids"])
        stored = self._get(f"/api/projects/{project_id}/file-uploads", ids=ids)
        addresses = {_own_name(item["file"]): f"/data/{item['file']}" for item in stored}
        if set(addresses) != set(pictures):
            raise PermanentError(f"{self.url} kept {len(addresses)} of {len(pictures)} pictures")
        return addresses

    def delete_uploads(self, project_id: int, *, of_name: str) -> None:
        """Show a picture that was uploaded under this name, less its suffix, no longer."""
        path = f"/api/projects/{project_id}/file-uploads"
        there = self._get(path, all="true")
        ids = [item["id"] for item in there if Path(_own_name(item["file"])).stem == of_name]
        if ids:  # without ids it deletes all
            self._call("DELETE", path, json={"file_upload_ids": ids})

    def show_folder(self, project_id: int, folder: Path) -> None:
        """Let whoever may see a project see the files in a folder of the server's machine."""
        known = self._get("/api/storages/localfiles", project=project_id)
        if all(storage["path"] != str(folder) for storage in known):
            storage = {"project": project_id, "path": str(folder), "title": "pictures"}
            self._call("POST", "/api/storages/localfiles", json=storage)

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Make tasks with their predictions, all or none; returns their ids in the same order."""
        made = self._call(
            "POST",
            f"/api/projects/{project_id}/import",
            json=list(tasks),
            return_task_ids="true",
        )
        counts = (made["task_count"], made["prediction_count"], len(made["task_ids"]))
        predictions = sum(len(task.get("predictions", ())) for task in tasks)
        if counts != (len(tasks), predictions, len(tasks)):
            raise PermanentError(
                f"{self.url} made tasks, predictions, ids {counts} of {len(tasks)} tasks with "
                f"{predictions} predictions: push again, and what is there will be found"
            )
        return [int(task_id) for task_id in made["task_ids"]]

    def task(self, task_id: int) -> dict[str, Any] | None:
        """A task with data, predictions and annotations; None when there is none."""
        found: dict[str, Any] | None = self._find(f"/api/tasks/{task_id}/")
        return found

    def tasks(self, project_id: int, *, changed_after: datetime | None = None) -> Iterator[Any]:
        """The tasks of a project with their annotations, those changed since alone.

        The server fails at a page with one task that it cannot spell (lone surrogates in an
        answer, for one): then tasks come one by one, and of that task `id` and `failed` alone.
        """
        conditions = [] if changed_after is None else [_changed_after(changed_after)]
        return self._pages(project_id, {"fields": "all"}, *conditions)

    def task_ids(self, project_id: int) -> dict[str, int]:
        """The tasks of a project by the key in their data; the oldest of those that share one."""
        found: dict[str, int] = {}
        for task in self._pages(project_id, {"fields": "task_only", "include": "id,data"}):
            found.setdefault(str(task["data"].get("key")), int(task["id"]))
        return found

    def snapshot(self, project_id: int) -> list[Any]:
        """All tasks of a project with their annotations, as they are at one moment.

        ServerFailed when the server cannot write it.
        """
        path = f"/api/projects/{project_id}/exports/"
        made = self._call("POST", path, json={"annotation_filter_options": ALL_ANNOTATIONS})
        own = f"{path}{made['id']}"
        try:
            deadline = time.monotonic() + SNAPSHOT_S
            while (state := self._get(own)["status"]) != "completed":
                if state == "failed" or time.monotonic() > deadline:
                    raise ServerFailed(f"{self.url} could not export project {project_id}: {state}")
                time.sleep(POLL_S)
            tasks: list[Any] = self._get(f"{own}/download")
            return tasks
        finally:
            self._send("DELETE", own)

    def delete_task(self, task_id: int) -> None:
        """Let a task be gone, with its annotations; one that is not there is gone."""
        response = self._send("DELETE", f"/api/tasks/{task_id}/")
        if response.status_code != 404:
            self._require_done(response, f"/api/tasks/{task_id}/")

    def has_annotation(self, annotation_id: int) -> bool:
        """Whether an annotation is there."""
        return self._find(f"/api/annotations/{annotation_id}/") is not None

    # Webhooks

    def set_webhook(self, project_id: int, url: str, *, header: str, secret: str) -> None:
        """Let the server call `url` when answers of a project change, with a secret in a header.

        It takes the place of the webhook that had this header before. ConfigError when the server
        may not call such an address.
        """
        wanted = {
            "project": project_id,
            "url": url,
            "headers": {header: secret},
            "send_payload": False,  # it would hold the whole project
            "send_for_all_actions": False,
            "actions": list(HINTS),
        }
        known = self._webhooks(project_id, header)
        method, path = ("PATCH", f"/api/webhooks/{known[0]}/") if known else ("POST", WEBHOOKS)
        response = self._send(method, path, json=wanted)
        if response.status_code == 403 and "reserved network" in response.text:
            raise ConfigError(
                f"{self.url} may not call {url}: start that server with "
                "USE_DEFAULT_BANNED_SUBNETS=false, or give an address that it may call with --url"
            )
        self._require_done(response, WEBHOOKS)

    def delete_webhook(self, project_id: int, *, header: str) -> None:
        """Let the server make no more calls with this header for a project."""
        for webhook_id in self._webhooks(project_id, header):
            self._require_done(self._send("DELETE", f"{WEBHOOKS}{webhook_id}/"), WEBHOOKS)

    def _webhooks(self, project_id: int, header: str) -> list[int]:
        there = self._get(WEBHOOKS, project=project_id)
        return [int(item["id"]) for item in there if header in item["headers"]]

    # The wire

    def _pages(
        self, project_id: int, fields: Mapping[str, str], *conditions: Mapping[str, Any]
    ) -> Iterator[Any]:
        """Tasks by id; each page begins after the last one, so that none is missed in between."""
        last = 0
        page: list[Any] = []
        while not last or len(page) == PAGE:
            conjunction = [_condition("id", "Number", last), *conditions]
            asked = {"filters": {"conjunction": "and", "items": conjunction}, "ordering": BY_ID}
            place = {"project": project_id, "page_size": PAGE, "query": json.dumps(asked)}
            try:
                page = self._get("/api/tasks/", **place, **fields)["tasks"]
            except ServerFailed:
                page = self._one_by_one(place)
            if not page:
                return
            yield from page
            last = int(page[-1]["id"])

    def _one_by_one(self, place: Mapping[str, Any]) -> list[Any]:
        """A page at which the server failed, without what it cannot say."""
        page = self._get("/api/tasks/", **place, fields="task_only", include="id")["tasks"]
        return [self._task_or_failure(int(task["id"])) for task in page]

    def _task_or_failure(self, task_id: int) -> Any:
        try:
            return self._get(f"/api/tasks/{task_id}/")
        except ServerFailed as error:
            return {"id": task_id, "failed": str(error)}

    def _get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, **query)

    def _find(self, path: str, **query: Any) -> Any:
        response = self._send("GET", path, params=query)
        return None if response.status_code == 404 else self._read(response, path)

    def _call(
        self, method: str, path: str, *, json: Any = None, files: Any = None, **q: Any
    ) -> Any:
        return self._read(self._send(method, path, params=q, json=json, files=files), path)

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        response = self._try(method, path, **request)
        if response.status_code == 401 and self._is_personal:  # lives for minutes only
            self._authorise()
            response = self._try(method, path, **request)
        return response

    def _try(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            return self._client.request(method, path, **request)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            cause = type(error).__name__
            raise TransientError(f"Label Studio at {self.url} does not answer ({cause})") from None

    def _read(self, response: httpx2.Response, path: str) -> Any:
        self._require_done(response, path)
        try:
            return response.json()
        except ValueError:
            raise ConfigError(f"{self.url} is no Label Studio: correct LABEL_STUDIO_URL") from None

    def _require_done(self, response: httpx2.Response, path: str) -> None:
        if response.status_code in (401, 403):
            raise ConfigError(
                f"Label Studio at {self.url} refuses the key in LABEL_STUDIO_API_KEY: take a valid "
                "one from Account & Settings there"
            )
        said = _said(response)
        if response.status_code >= 500:
            raise ServerFailed(f"Label Studio at {self.url} failed at {path}: {said}")
        if response.status_code >= 400:
            raise ConfigError(f"Label Studio at {self.url} refuses {path}: {said}")

    def _check_version(self) -> None:
        said = self._get("/api/version")
        try:
            version = str(said["label-studio-os-package"]["version"])
            numbers = tuple(int(part) for part in version.split(".")[:2])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{self.url} is no Label Studio: correct LABEL_STUDIO_URL") from None
        if not OLDEST <= numbers < (2,):
            wanted = ".".join(map(str, OLDEST))
            raise ConfigError(
                f"{self.url} runs Label Studio {version}: this works with {wanted} and later 1.x"
            )

    @property
    def _is_personal(self) -> bool:
        """A personal access token is exchanged for a short-lived one; a legacy token is sent."""
        return self._api_key.get_secret_value().count(".") == 2

    def _authorise(self) -> None:
        key = self._api_key.get_secret_value()
        if not self._is_personal:
            self._client.headers["Authorization"] = f"Token {key}"
            return
        self._client.headers.pop("Authorization", None)
        answer = self._try("POST", "/api/token/refresh/", json={"refresh": key})
        self._client.headers["Authorization"] = f"Bearer {self._read(answer, 'the key')['access']}"


def _own_name(stored: str) -> str:
    """Our name of a picture: the server puts a folder and eight characters before it."""
    return stored.rsplit("/", 1)[-1].partition("-")[2]


def _changed_after(moment: datetime) -> dict[str, Any]:
    value = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # it reads no other spelling
    return _condition("updated_at", "Datetime", value)


def _condition(name: str, kind: str, least: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{name}", "operator": "greater", "type": kind, "value": least}


def _said(response: httpx2.Response) -> str:
    """What the server says of a failure, on one line of bearable length."""
    try:
        body = response.json()
        told = body.get("validation_errors") or body.get("detail") or body
    except (ValueError, AttributeError):
        told = response.reason_phrase
    return f"{response.status_code} {' '.join(str(told).split())[:300]}"
