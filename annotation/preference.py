"""Tasks of kind preference: an expert has to prefer one of two drafts about the same image.

FakeScope (arXiv 2503.24267) compares ACoTI with a plain request in this way: six annotators, a
hundred images. Each expert has a project, in which each arm stands on the left half of the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from annotation.answers import Answers
from annotation.exemplars import Filled
from annotation.forms import LEFT, PREFERRED, RIGHT, preference_form, text_name
from annotation.interface import Form
from annotation.kinds import Answer, Due, Kept, Records, Shown
from annotation.texts import description_of
from core.errors import DataError
from core.guidance import Unlabelled, assign
from core.ids import content_id
from core.preference import Sides, study_images
from core.recipe import PreferenceStudy, Recipe
from core.records import Preference, TaskKind
from db.engine import Database
from db.images import images_by_id
from db.judgements import PREFERENCES
from db.quality import StudyReport, measure_preferences
from db.studio import (
    DraftedImage,
    StudioTask,
    Subject,
    awaited_tasks,
    drafted_images,
    drafts_by_id,
    owner_of,
)

SEPARATOR: Final = "+"
"""between the ids of the left and the right draft: what such a task shows"""


class Preferences:
    """Pairs of drafts of two arms; an answer becomes a preference."""

    kind: Final = TaskKind.PREFERENCE
    model_version: Final = "none"

    def form(self, recipe: Recipe) -> Form:
        return preference_form()

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        """Each image goes to as many experts as the study asks for; `limit` counts images."""
        study = records.recipe.settings.review.preference
        if study is None:
            return []
        with records.database.read() as session:
            pairs = {
                image_id: image
                for image_id, image in drafted_images(
                    session, records.campaign_id, study.arms, sources=sources
                ).items()
                if len(image.drafts) == len(study.arms)
            }
            placed = awaited_tasks(
                session,
                server=records.server,
                form_id=self.form(records.recipe).form_id,
                kind=self.kind,
                campaign_id=records.campaign_id,
            )
            arms = _arms_of(session, [task for task, _ in placed])
        sides, owners = Sides(study.seed), _owners(placed)
        for task, owner in placed:
            first_is_left = arms[_halves(task.subject_id)[0]] == study.arms[0]
            sides.note(task.image_id, owner or "", first_is_left=first_is_left)
        waiting = list(_unjudged(pairs, owners, study))[:limit]
        given = assign(
            waiting,
            records.experts(self.kind),
            load=Counter(owner for some in owners.values() for owner in some),
            seed=study.seed,
        )
        return [
            Due(
                owner=expert,
                subjects=[_pair(pairs[name], expert, study, sides) for name in image_ids],
            )
            for expert, image_ids in given.items()
        ]

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        with records.database.read() as session:
            drafts = drafts_by_id(session, [half for s in subject_ids for half in _halves(s)])
            images = images_by_id(session, [draft.image_id for draft in drafts.values()])
        found: dict[str, Shown | DataError] = {}
        for subject_id in subject_ids:
            pair = [drafts[half] for half in _halves(subject_id)]
            texts = {
                text_name(side): description_of(draft.reasoning)
                for side, draft in zip((LEFT, RIGHT), pair, strict=True)
            }
            found[subject_id] = Shown(image=images[pair[0].image_id], data=texts)
        return found

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        with records.database.read() as session:
            owner = owner_of(session, task.project_key)
            version = PREFERENCES.next_version(session, task.image_id, answer.expert)
        if owner != answer.expert:
            raise DataError(f"it was for {owner} to choose, who has a project of their own")
        said = preference_from(answer, task, version=version)
        return Kept(
            record_id=said.preference_id, save=lambda session: PREFERENCES.save(session, said)
        )

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        PREFERENCES.withdraw(session, record_ids)


def _halves(subject_id: str) -> tuple[str, str]:
    left, _, right = subject_id.partition(SEPARATOR)
    return left, right


def _arms_of(session: Any, tasks: Sequence[StudioTask]) -> dict[str, str]:
    """The arm of each draft that stands on the left of a task."""
    drafts = drafts_by_id(session, [_halves(task.subject_id)[0] for task in tasks])
    return {draft_id: draft.arm for draft_id, draft in drafts.items()}


def _owners(placed: Sequence[tuple[StudioTask, str | None]]) -> dict[str, frozenset[str]]:
    """The experts that have a pair before them, or judged it, by image."""
    found: dict[str, frozenset[str]] = {}
    for task, owner in placed:
        found[task.image_id] = found.get(task.image_id, frozenset()) | {owner or ""}
    return found


def _unjudged(
    pairs: Mapping[str, DraftedImage], owners: Mapping[str, frozenset[str]], study: PreferenceStudy
) -> Iterator[Unlabelled]:
    """The images of the study that more experts are to judge."""
    labels = {name: image.label for name, image in pairs.items()}
    for image_id in study_images(labels, study.images, chosen=owners, seed=study.seed):
        taken_by = owners.get(image_id, frozenset())
        if len(taken_by) < study.experts:
            needed = study.experts - len(taken_by)
            yield Unlabelled(image_id=image_id, needed=needed, taken_by=taken_by)


def _pair(image: DraftedImage, expert: str, study: PreferenceStudy, sides: Sides) -> Subject:
    """The drafts of an image in the order in which an expert is to see them."""
    drafts = [image.drafts[arm] for arm in study.arms]
    if not sides.place(image.image_id, expert):
        drafts.reverse()
    return Subject(subject_id=SEPARATOR.join(drafts), image_id=image.image_id)


def preference_from(answer: Answer, task: StudioTask, *, version: int) -> Preference:
    """Read an answer; DataError when nothing was chosen."""
    chosen = Answers(answer.annotation.results).choice(PREFERRED)
    if chosen not in (LEFT, RIGHT):
        raise DataError("neither text was chosen")
    left, right = _halves(task.subject_id)
    is_left = chosen == LEFT
    return Preference(
        preference_id=content_id("preference", answer.key, answer.annotation.digest()),
        image_id=task.image_id,
        expert=answer.expert,
        version=version,
        preferred=left if is_left else right,
        other=right if is_left else left,
        preferred_first=is_left,
    )


def count_votes(database: Database, recipe: Recipe) -> Filled | None:
    """How far the study is; None where the recipe asks for none."""
    if recipe.settings.review.preference is None:
        return None
    report = measure_preferences(database, recipe)
    return Filled(done=report.result.wins.votes if report.result else 0, wanted=report.wanted)


def report_as_text(report: StudyReport) -> Iterator[str]:
    """The study as a person reads it."""
    first, second = report.arms
    if (found := report.result) is None:
        yield f"{first} against {second}: nobody has judged anything yet"
        return
    yield (
        f"{first} was preferred to {second} in {found.wins.share:.1%} of {found.wins.votes} votes "
        f"({report.wanted} asked for), {len(found.experts)} experts on {found.images} images"
    )
    yield "95 % interval"
    rows = {
        "if votes were independent": found.wins,
        "votes on an image alike": found.by_image,
        "votes of an expert alike": found.by_expert,
    }
    for name, share in rows.items():
        yield f"  {name:<26} {share.low:.1%} .. {share.high:.1%}"
    yield (
        f"the left text was preferred in {found.left.share:.1%} "
        f"({found.left.low:.1%} .. {found.left.high:.1%})"
    )
    for name, when in (("left", found.when_first), ("right", found.when_second)):
        yield f"  {first} on the {name}: {'-' if when is None else f'{when:.1%}'}"
    for expert, won in found.experts.items():
        yield f"  {expert}: {won:.1%}"
