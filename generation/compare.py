"""The arms of a campaign side by side: how their replies and drafts differ. Money is in `costs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from core.errors import DataError
from core.recipe import Arm, Recipe
from core.records import Draft, TeacherReply
from db.engine import Database
from db.images import images_by_id
from db.ledger import drafts, replies_about
from db.work import campaign_id_of, given_image_ids, set_aside
from generation.brief import Brief, briefs_for
from generation.panel import Panel, measure_panel
from generation.panel import as_text as panel_as_text
from generation.parse import WrongVerdict

BLOCK = 500
"""images whose replies are read at a time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """What one arm did with its images; a mean is None where there is nothing to count."""

    arm: str
    model: str
    mode: str
    drafts: int
    set_aside: int
    replies: int
    unusable_replies: int
    wrong_verdicts: int
    """of the unusable replies: those whose verdict is not the label that was told"""
    categories_per_draft: float | None
    """trace categories that speak for the verdict"""
    opposing_per_draft: float | None
    """findings that speak against it"""
    without_trace: int
    """drafts in which nothing speaks for the verdict"""
    prompt_tokens_per_reply: float | None
    completion_tokens_per_reply: float | None
    picture_bytes_per_draft: float | None
    panel: Panel | None = None
    """of an arm that merges: who raised what"""


def compare_arms(database: Database, recipe: Recipe) -> list[ArmFigures]:
    """One row per arm, over the images that it was given: arms may have had different ones."""
    return [_figures(database, recipe, arm) for arm in recipe.arms]


def as_text(rows: Sequence[ArmFigures]) -> Iterator[str]:
    """A table with one line per figure and one column per arm, then what panels agree on."""
    columns = [
        {name: _shown(value) for name, value in asdict(row).items() if name != "panel"}
        for row in rows
    ]
    names = list(columns[0])
    name_width = max(map(len, names))
    widths = [max(map(len, column.values())) for column in columns]
    for name in names:
        cells = (f"{c[name]:>{width}}" for c, width in zip(columns, widths, strict=True))
        yield "  ".join([f"{name.replace('_', ' '):<{name_width}}", *cells])
    for row in rows:
        if row.panel is not None:
            yield ""
            yield from panel_as_text(row.arm, row.panel)


@dataclass(slots=True, kw_only=True)
class _DraftSums:
    drafts: int = 0
    categories: int = 0
    opposing: int = 0
    without_trace: int = 0
    picture_bytes: int = 0

    def add(self, draft: Draft) -> None:
        supporting = draft.reasoning.supporting()
        self.drafts += 1
        self.categories += len({finding.category for finding in supporting})
        self.opposing += len(draft.reasoning.findings) - len(supporting)
        self.without_trace += not supporting
        self.picture_bytes += draft.bytes_sent


@dataclass(slots=True, kw_only=True)
class _ReplySums:
    replies: int = 0
    unusable: int = 0
    wrong_verdicts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: TeacherReply, brief: Brief) -> None:
        self.replies += 1
        self.prompt_tokens += reply.usage.prompt_tokens
        self.completion_tokens += reply.usage.completion_tokens
        try:
            brief.read(reply)
        except DataError as error:
            self.unusable += 1
            self.wrong_verdicts += isinstance(error, WrongVerdict)


def _figures(database: Database, recipe: Recipe, arm: Arm) -> ArmFigures:
    campaign_id = campaign_id_of(recipe)
    made = _DraftSums()
    said = _ReplySums()
    with database.read() as session:
        image_ids = sorted(given_image_ids(session, campaign_id, arm.name))
        num_aside = len(set_aside(session, campaign_id, arm.name))
        for draft in drafts(session, campaign_id, arm.name):
            made.add(draft)
    for start in range(0, len(image_ids), BLOCK):
        block = image_ids[start : start + BLOCK]
        with database.read() as session:
            images = images_by_id(session, block)
            replies = replies_about(session, campaign_id, arm.name, block)
        briefs = briefs_for(database, recipe, arm, list(images.values()))
        for image_id, about in replies.items():
            for reply in about:
                said.add(reply, briefs[image_id])
    return ArmFigures(
        arm=arm.name,
        model=arm.model,
        mode=arm.mode,
        drafts=made.drafts,
        set_aside=num_aside,
        replies=said.replies,
        unusable_replies=said.unusable,
        wrong_verdicts=said.wrong_verdicts,
        categories_per_draft=_mean(made.categories, made.drafts),
        opposing_per_draft=_mean(made.opposing, made.drafts),
        without_trace=made.without_trace,
        prompt_tokens_per_reply=_mean(said.prompt_tokens, said.replies),
        completion_tokens_per_reply=_mean(said.completion_tokens, said.replies),
        picture_bytes_per_draft=_mean(made.picture_bytes, made.drafts),
        panel=measure_panel(database, recipe, arm) if arm.merge else None,
    )


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return "-" if value is None else str(value)
