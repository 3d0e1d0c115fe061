"""A campaign of the shipped recipe whose replies a test makes up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.recipe import load_recipe
from core.records import Draft, ImageRecord, TeacherReply
from db.engine import Database
from db.ledger import DatabaseLedger, drafts, save_drafts
from db.results import keep_results
from db.work import add_work, claim, open_campaign, quarantine
from generation.parse import draft_of, parse_draft
from generation.prompt import render
from imaging.store import ImageStore
from tests.campaigns import NOON, make_reply, store_images
from tests.unit.teacher.scripted import draw_jpeg

RECIPE = load_recipe()
ARM = RECIPE.arm("main")


class Drafting:
    """Images that the arm `main` has claimed, in an open database."""

    def __init__(self, opened: Database, folder: Path, images: int) -> None:
        self.database = opened
        self.store = ImageStore(folder)
        place = self.store.add(draw_jpeg(), ".jpg")
        self.images = store_images(opened, images, path=place)
        with opened.write() as session:
            self.campaign_id = open_campaign(session, RECIPE, ceiling_usd=None)
            add_work(session, self.campaign_id, "main", [i.image_id for i in self.images])
            claims = claim(
                session,
                self.campaign_id,
                arms=["main"],
                worker="w",
                limit=images,
                seconds=60,
                now=NOON,
            )
        self.claims = {item.image_id: item for item in claims}

    def answer(
        self, image: ImageRecord, *, campaign_id: str | None = None, **changes: Any
    ) -> TeacherReply:
        """A stored reply about an image; by default one that can be used, in this campaign."""
        good = {"findings": [], "conclusion": "Nothing shows it.", "confidence": "low"}
        content = json.dumps({**good, "verdict": image.label})
        ledger = DatabaseLedger(self.database, campaign_id or self.campaign_id, teacher="rehearsal")
        name = changes.pop("request_hash", f"request {image.image_id} {changes}")
        attempt_id = ledger.open_attempt(
            request_hash=name,
            image_id=image.image_id,
            arm="main",
            model="rehearsal",
            reserved_usd=0.0,
        )
        reply = make_reply(name, **{"content": content, **changes})
        return ledger.store_reply(attempt_id, reply, 0.001)

    def keep(self, image: ImageRecord, reply: TeacherReply) -> Draft:
        """The draft that the present parser makes of a reply, stored."""
        reasoning = parse_draft(reply, taxonomy=RECIPE.taxonomy, label=image.label)
        rendered = render(image, self.store.read(image.path), recipe=RECIPE, arm=ARM)
        work = self.claims[image.image_id]
        draft = draft_of(reasoning, reply, rendered, work=work)
        with self.database.write() as session:
            assert keep_results(session, [(work, draft)]) == [None]
        return draft

    def read_otherwise(self, draft: Draft) -> Draft:
        """The draft as an older parser might have left it, in place of the present one."""
        older = replace(draft.reasoning, conclusion="An older reading.")
        other = replace(draft, draft_id=f"{draft.draft_id}-older", reasoning=older)
        with self.database.write() as session:
            save_drafts(session, [other])
        return other

    def set_aside(self, image: ImageRecord) -> None:
        with self.database.write() as session:
            quarantine(session, self.claims[image.image_id].work_id, "an older parser")

    def newest(self) -> list[Draft]:
        with self.database.read() as session:
            return list(drafts(session, self.campaign_id, "main"))
