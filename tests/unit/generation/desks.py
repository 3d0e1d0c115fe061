"""A desk in an SQLite file with images to draft, before a teacher that a test scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from core.ids import image_id_of, sha256_bytes
from core.recipe import Arm, Recipe, load_recipe
from core.records import Authenticity, Source, WorkState
from db.engine import Database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger
from db.work import add_work, open_campaign, work_counts
from generation.desk import Desk, Seat
from imaging.store import ImageStore
from teacher.client import Teacher
from teacher.gate import Gate
from teacher.prices import FREE
from tests.unit.records import make_image
from tests.unit.teacher.scripted import Answer, completion, draw_jpeg

Answering = Callable[[int], Answer]
"""from the number of a request, counted from 0, to its answer"""


def usable() -> Answer:
    """A reply about a fake that makes a draft."""
    finding = {
        "category": "texture",
        "evidence": "The texture repeats every two pixels.",
        "points_to": "fake",
        "region": None,
    }
    return completion(
        json.dumps(
            {
                "findings": [finding],
                "conclusion": "The picture was generated.",
                "verdict": "fake",
                "confidence": "high",
            }
        )
    )


class AnsweringServer(ThreadingHTTPServer):
    """Answers each request by a function of the test, in a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answering: Answering) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answering = answering
        self.heard = 0
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_number(self) -> int:
        with self._lock:
            self.heard += 1
            return self.heard - 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own business."""


class _Handler(BaseHTTPRequestHandler):
    server: AnsweringServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = self.server.answering(self.server.next_number())
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@dataclass(frozen=True)
class Scene:
    """A desk, its teacher, and what the database says about the work."""

    desk: Desk
    server: AnsweringServer
    arms: list[str] = field(default_factory=lambda: ["main"])

    def counts(self) -> Mapping[WorkState, int]:
        with self.desk.database.read() as session:
            return work_counts(session, self.desk.campaign_id)


@contextmanager
def scene(
    database: Database,
    folder: Path,
    answering: Answering,
    *,
    images: int,
    **drafting: Any,
) -> Iterator[Scene]:
    """`images` fakes before one arm; `drafting` replaces settings of the recipe."""
    recipe = _recipe_with(drafting)
    store = ImageStore(folder / "images")
    records = []
    for number in range(images):
        data = draw_jpeg(seed=number, side=16)
        digest = sha256_bytes(data)
        records.append(
            make_image(
                str(number),
                image_id=image_id_of(digest),
                path=store.add(data, ".jpg"),
                label=Authenticity.FAKE,
                source="drawn",
            )
        )
    with database.write() as session:
        save_source(session, Source(name="drawn", licence="CC0-1.0"))
        save_images(session, records)
        campaign_id = open_campaign(session, recipe, ceiling_usd=None)
        add_work(session, campaign_id, "main", [record.image_id for record in records])
    server = AnsweringServer(answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with Teacher(server.base_url, timeout_s=30) as teacher:
            yield Scene(_desk(database, store, recipe, campaign_id, teacher), server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _recipe_with(drafting: Mapping[str, Any]) -> Recipe:
    recipe = load_recipe()
    changed = recipe.settings.drafting.model_copy(update=drafting)
    settings = recipe.settings.model_copy(update={"drafting": changed})
    return recipe.model_copy(update={"settings": settings})


def _desk(
    database: Database, store: ImageStore, recipe: Recipe, campaign_id: str, teacher: Teacher
) -> Desk:
    arm: Arm = recipe.arm("main")
    ledger = DatabaseLedger(database, campaign_id, teacher=arm.teacher)
    return Desk(
        database=database,
        store=store,
        recipe=recipe,
        campaign_id=campaign_id,
        seats={"main": Seat(arm=arm, teacher=teacher, ledger=ledger, price=FREE, gate=Gate())},
        worker="worker",
    )
