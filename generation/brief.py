"""What an arm knows of an image before it asks, and what becomes of the reply.

There are three kinds of arms: most look at the image and draft; one that sorts asks what the image
shows; one that merges words the points that other arms' drafts agree on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from core.consensus import Vote, common_confidence, count_votes
from core.errors import DataError
from core.recipe import Arm, Recipe
from core.records import Claim, Draft, ImageRecord, ImageTopic, Reasoning, TeacherReply
from core.taxonomy import Taxonomy
from core.topics import Topic, topic_among
from db.engine import Database
from db.ledger import drafts
from db.topics import topics_among
from db.work import campaign_id_of
from generation.parse import draft_of, glaring_in, parse_draft
from generation.parse_merge import parse_merge
from generation.parse_topic import parse_topic
from generation.prompt import Rendered, render, render_merge, render_sorting
from generation.steering import steering

Said = Reasoning | Topic
"""what a usable reply comes to"""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """One image before one arm."""

    recipe: Recipe
    arm: Arm
    image: ImageRecord
    guidance: tuple[str, ...] = ()
    """categories that blind experts chose"""
    topic: Topic | None = None
    """what the image shows, where the recipe knows topics and somebody said it"""
    drafts: tuple[Draft, ...] = ()
    """that the arm merges, in the order of their arms"""

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The categories that the arm is to look for."""
        whole = self.recipe.taxonomy
        label = None if self.arm.control else self.image.label
        return self.topic.taxonomy(whole, label) if self.topic else whole

    @cached_property
    def votes(self) -> tuple[Vote, ...]:
        """What the drafts agree on; empty where the arm merges none."""
        needed = self.arm.merge.votes if self.arm.merge else 0
        return count_votes(self.drafts, self.recipe.taxonomy, needed=needed)

    def check(self) -> None:
        """DataError with the reason why the arm cannot be asked about the image."""
        image, merge = self.image, self.arm.merge
        if image.label is None:
            raise DataError(
                f"image {image.image_id} has no label; only labelled images are drafted"
            )
        if merge is not None and len(self.drafts) < merge.votes:
            heard = ", ".join(draft.arm for draft in self.drafts) or "none"
            raise DataError(
                f"{len(self.drafts)} of the arms {', '.join(merge.arms)} have drafted image "
                f"{image.image_id} ({heard}); {merge.votes} votes are needed"
            )
        if self._needs_topic and self.topic is None:
            known = ", ".join(topic.id for topic in self.recipe.topics)
            raise DataError(
                f"nobody has said which topic image {image.image_id} has; the recipe knows: {known}"
            )

    @property
    def _needs_topic(self) -> bool:
        return bool(self.recipe.topics) and self.arm.merge is None and not self.arm.sorts

    def render(self, data: bytes) -> Rendered:
        """The request about the image, whose stored bytes are `data`."""
        recipe, arm, image = self.recipe, self.arm, self.image
        if arm.sorts:
            return render_sorting(image, data, recipe=recipe, arm=arm)
        if arm.merge is not None:
            kept = [vote for vote in self.votes if vote.is_kept]
            return render_merge(image, kept, recipe=recipe, arm=arm, num_drafts=len(self.drafts))
        return render(
            image,
            data,
            recipe=recipe,
            arm=arm,
            guidance=self.guidance,
            topic=self.topic,
            taxonomy=self.taxonomy,
        )

    def stand_in(self) -> Brief:
        """To estimate a request before all is known that it will hold."""
        topic = self.topic or (self.recipe.topics[0] if self._needs_topic else None)
        return replace(self, topic=topic)

    def read(self, reply: TeacherReply) -> Said:
        """What a reply says; DataError with the reason why it cannot be used."""
        if self.arm.sorts:
            return parse_topic(reply, topics=self.recipe.topics)
        label = None if self.arm.control else self.image.label
        if self.arm.merge is None:
            return parse_draft(reply, taxonomy=self.taxonomy, label=label)
        assert label is not None
        return parse_merge(
            reply,
            [vote for vote in self.votes if vote.is_kept],
            label=label,
            opening=self.arm.merge.opens(label),
            confidence=common_confidence(self.drafts),
        )

    def result(
        self, said: Said, reply: TeacherReply, rendered: Rendered, *, work: Claim
    ) -> Draft | ImageTopic:
        """What is stored of a reply that could be used."""
        if isinstance(said, Topic):
            return ImageTopic(image_id=work.image_id, said_by=reply.model, topic=said.id)
        return replace(
            draft_of(said, reply, rendered, work=work, merged=self.drafts),
            glaring=glaring_in(reply) if self.topic and not self.arm.merge else (),
        )


def briefs_for(
    database: Database, recipe: Recipe, arm: Arm, images: Sequence[ImageRecord]
) -> dict[str, Brief]:
    """The briefs of an arm, by image id."""
    ids = [image.image_id for image in images]
    guidance = steering(database, recipe, arm, ids)
    topics = known_topics(database, recipe, ids)
    merged: dict[str, list[Draft]] = defaultdict(list)
    with database.read() as session:
        for name in arm.merge.arms if arm.merge else ():
            for draft in drafts(session, campaign_id_of(recipe), name, image_ids=ids):
                merged[draft.image_id].append(draft)
    return {
        image.image_id: Brief(
            recipe=recipe,
            arm=arm,
            image=image,
            guidance=guidance.get(image.image_id, ()),
            topic=topics.get(image.image_id),
            drafts=tuple(merged[image.image_id]),
        )
        for image in images
    }


def brief_for(database: Database, recipe: Recipe, arm: Arm, image: ImageRecord) -> Brief:
    """The brief of an arm about one image; DataError where it cannot be asked about it."""
    brief = briefs_for(database, recipe, arm, [image])[image.image_id]
    brief.check()
    return brief


def known_topics(database: Database, recipe: Recipe, image_ids: Sequence[str]) -> dict[str, Topic]:
    """What images show, as far as somebody has named a topic of the recipe."""
    if not recipe.topics:
        return {}
    with database.read() as session:
        said = topics_among(session, image_ids)
    found = {image_id: topic_among(recipe.topics, words) for image_id, words in said.items()}
    return {image_id: topic for image_id, topic in found.items() if topic is not None}
