"""Two experts and a third on 60 images of a real Label Studio: every figure as counted by hand.

The images are all fake, and every draft names texture and edge. What an image gets follows from its
number alone:

    blind          first             second            third             guidance
    0-29  (30)     texture edge      texture edge                        texture edge
    30-39 (10)     texture           texture edge                        texture
    40-46 (7)      texture           edge              edge clarity      edge
    47    (1)      texture           edge              clarity           nothing
    48-53 (6)      texture           says real         texture edge      texture
    54-57 (4)      says real         says real         says real         hard
    58-59 (2)      says real         says real         texture           open: one more is needed

    review         first             second                              level
    0-29  (30)     texture edge      texture edge                        agreed
    30-39 (10)     texture edge      texture                             agreed: half is shared
    40-49 (10)     texture           edge                                disagreement 2/2
    50-55 (6)      texture shape     clarity                             disagreement 3/4
    56-59 (4)      nothing           nothing                             agreed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from annotation.chains import chain_drafts
from annotation.pull import pull
from annotation.push import push
from annotation.server import INSTALL, is_installed, own_server
from core.gold import GoldScore
from core.recipe import GoldEntry, Recipe, load_recipe
from core.records import Guidance, ReviewLevel, TaskKind
from db.blind import guidance_among
from db.quality import (
    Agreement,
    Quality,
    adjudication_queue,
    measure_agreement,
    measure_quality,
)
from db.studio import expert_of, projects, tasks_of
from tests.brokers import skip_or_fail
from tests.label_studio import Server, Workplace, api, changed, make_workplace, sign_up
from tests.unit.records import make_finding

pytestmark = pytest.mark.full

IMAGES = 60
FINDINGS = [make_finding("texture"), make_finding("edge")]
REAL: tuple[str, ...] = ("real",)
Answer = tuple[str, ...]
"""categories of a blind answer with a right verdict, or `REAL`"""


@dataclass
class Loop:
    """The work, and the experts who do it by their pseudonyms."""

    work: Workplace
    clients: dict[str, httpx2.Client] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def sign_up(self) -> str:
        """One more expert."""
        account = sign_up(self.work.server)
        database, server = self.work.desk.database, self.work.desk.studio.server
        with database.write() as session:
            expert = expert_of(session, server, account.user_id)
        self.clients[expert] = self.stack.enter_context(api(self.work.server, account))
        return expert

    def number_of(self, image_id: str) -> int:
        images = [draft.image_id for draft in self.work.drafts]
        return images.index(image_id)

    def tasks(self, kind: TaskKind, owner: str | None = None) -> list[tuple[str, int, Any]]:
        """What nobody has answered yet: its subject, the number of its image, and the task."""
        found = []
        with self.work.desk.database.read() as session:
            for project in projects(session, self.work.desk.campaign_id, kind=kind):
                if project.owner == owner:
                    known = tasks_of(session, project.project_key)
                    for task in self.work.desk.studio.tasks(project.project_id or 0):
                        shown = known[task["data"]["key"]]
                        found.append((shown.subject_id, self.number_of(shown.image_id), task))
        return found

    def submit(self, expert: str, task: Any, results: Sequence[Any], seconds: float) -> None:
        body = {"result": list(results), "lead_time": seconds}
        self.clients[expert].post(
            f"/api/tasks/{task['id']}/annotations/", json=body
        ).raise_for_status()

    def answer_blind(self, expert: str, task: Any, answer: Answer) -> None:
        verdict = "real" if answer == REAL else "fake"
        chosen = {"verdict": [verdict], "confidence": ["high"]}
        if answer and answer != REAL:
            chosen["categories"] = list(answer)
        self.submit(expert, task, changed([], chosen), 20)

    def answer_review(self, expert: str, task: Any, left: Answer, seconds: float) -> None:
        """Leave these of the drafted categories, and add the others."""
        changes: dict[str, Sequence[str]] = {
            f"verdict_{place}": ["accept" if finding.category in left else "reject"]
            for place, finding in enumerate(FINDINGS)
        }
        drafted = {finding.category for finding in FINDINGS}
        added = [category for category in left if category not in drafted]
        for number, category in enumerate(added, start=1):
            changes[f"added_category_{number}"] = [category]
            changes[f"added_text_{number}"] = [f"{expert} sees the {category}."]
        prediction = task["predictions"][0]["result"]
        self.submit(expert, task, changed(prediction, changes), seconds)

    def settle(self, expert: str, task: Any, left: Answer) -> None:
        """Accept the traces of these categories, and reject the others."""
        changes: dict[str, Sequence[str]] = {"confidence": ["high"]}
        for place, trace in enumerate(task["data"]["traces"]):
            name = trace["heading"].split(": ")[0].partition(". ")[2]
            category = next(c.id for c in load_recipe().taxonomy.categories if c.name == name)
            changes[f"verdict_{place}"] = ["accept" if category in left else "reject"]
        self.submit(expert, task, changed(task["predictions"][0]["result"], changes), 60)

    def push(self, only: TaskKind) -> int:
        return push(self.work.desk, only=only, report=lambda _done, _total: None).made

    def agreement(self) -> Agreement:
        return measure_agreement(self.work.desk.database, self.work.desk.recipe)

    def quality(self) -> Quality:
        return measure_quality(self.work.desk.database, self.work.desk.recipe)


def recipe_of(*, gold_share: float = 0.0, gold: tuple[GoldEntry, ...] = ()) -> Recipe:
    recipe = load_recipe()
    settings = recipe.settings
    review = settings.review
    shared = review.gold.model_copy(update={"share": gold_share})
    changes = {
        "drafting": settings.drafting.model_copy(update={"blind": True}),
        "review": review.model_copy(update={"gold": shared}),
    }
    return recipe.model_copy(update={"settings": settings.model_copy(update=changes), "gold": gold})


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    with own_server(tmp_path / "server") as access, ExitStack() as stack:
        server = Server(access.url, access.token)
        work = make_workplace(tmp_path, server, *[FINDINGS] * IMAGES, recipe=recipe_of())
        stack.callback(work.desk.database.dispose)
        stack.callback(work.desk.studio.close)
        yield Loop(work, stack=stack)


def test_the_loop_gives_what_was_counted_by_hand(loop: Loop) -> None:
    first, second = loop.sign_up(), loop.sign_up()
    third = label_blind(loop, first, second)
    check_guidance(loop)
    check_blind_agreement(loop, first, second, third)

    review(loop, first, second)
    check_review_agreement(loop, first, second)
    check_teacher_quality(loop, first, second)
    adjudicate(loop, third)

    check_gold_of_reviews(loop, first, second)
    check_gold_of_blind_labels(loop, first, second, third)


# Blind


def label_blind(loop: Loop, first: str, second: str) -> str:
    """Both experts label all images; returns the third one, who labels what is open then."""
    assert loop.push(TaskKind.BLIND) == 2 * IMAGES
    for expert, column in ((first, 0), (second, 1)):
        for _, number, task in loop.tasks(TaskKind.BLIND, expert):
            loop.answer_blind(expert, task, blind_answers(number)[column])
    pull(loop.work.desk)
    third = loop.sign_up()
    assert loop.push(TaskKind.BLIND) == 20
    for _, number, task in loop.tasks(TaskKind.BLIND, third):
        loop.answer_blind(third, task, blind_answers(number)[2])
    pull(loop.work.desk)
    assert loop.push(TaskKind.BLIND) == 0
    return third


def blind_answers(number: int) -> tuple[Answer, Answer, Answer]:
    both: Answer = ("texture", "edge")
    if number < 30:
        return both, both, ()
    if number < 40:
        return ("texture",), both, ()
    if number < 48:
        return ("texture",), ("edge",), ("edge", "clarity") if number < 47 else ("clarity",)
    if number < 54:
        return ("texture",), REAL, both
    return REAL, REAL, REAL if number < 58 else ("texture",)


def check_guidance(loop: Loop) -> None:
    with loop.work.desk.database.read() as session:
        found = guidance_among(session, [draft.image_id for draft in loop.work.drafts])
    table = Counter(guidance_in_words(guidance) for guidance in found.values())
    assert table == {"edge texture": 30, "texture": 16, "edge": 7, "": 1, "hard": 4}
    assert len(found) == IMAGES - 2


def guidance_in_words(guidance: Guidance) -> str:
    return "hard" if guidance.hard else " ".join(guidance.categories)


def check_blind_agreement(loop: Loop, first: str, second: str, third: str) -> None:
    found = loop.agreement().blind
    assert found is not None
    assert found.images == IMAGES
    # 40 images with two verdicts and 20 with three: 140 verdicts, 118 of them fake. In 8 images one
    # of three differs, which makes 2 coincidences of different verdicts each
    assert found.verdict.value == pytest.approx(1 - 139 * 16 / (2 * 118 * 22))
    assert found.verdict.low is not None
    assert found.verdict.low < found.verdict.value
    right = {name: expert.right for name, expert in found.by_expert.items()}
    assert right == pytest.approx({first: 54 / 60, second: 48 / 60, third: 16 / 20})
    pair = found.pairs[0]
    assert (pair.experts, pair.images) == ((first, second), 60)
    assert pair.kappa == pytest.approx((0.9 - 0.74) / (1 - 0.74))
    # pairs of right answers: 30 alike, 10 and 8 of the first two, then the third with them
    shared = 30 * 1 + 10 / 2 + 8 * 0
    shared += 7 * (0 + 1 / 2) + 1 * (0 + 0)  # edge, clarity with texture and with edge; clarity
    shared += 6 / 2  # texture with texture, edge
    assert found.categories == pytest.approx(shared / (30 + 10 + 3 * 8 + 6))


# Review


def review(loop: Loop, first: str, second: str) -> None:
    assert loop.push(TaskKind.REVIEW) == IMAGES
    for _, number, task in loop.tasks(TaskKind.REVIEW):
        for expert, left, seconds in zip(
            (first, second), review_answers(number), (30, 45.5), strict=True
        ):
            loop.answer_review(expert, task, left, seconds)
    pull(loop.work.desk)


def review_answers(number: int) -> tuple[Answer, Answer]:
    both: Answer = ("texture", "edge")
    if number < 30:
        return both, both
    if number < 40:
        return both, ("texture",)
    if number < 50:
        return ("texture",), ("edge",)
    if number < 56:
        return ("texture", "shape"), ("clarity",)
    return (), ()


def check_review_agreement(loop: Loop, first: str, second: str) -> None:
    found = loop.agreement().reviews
    assert found.images == IMAGES
    # 240 outcomes, 176 accepted and 64 rejected; of 120 traces 36 are disputed
    assert found.overall.outcome.units == 120
    assert found.overall.outcome.agreement == pytest.approx(84 / 120)
    alpha = 1 - 239 * 2 * 36 / (2 * 176 * 64)
    assert found.overall.outcome.value == pytest.approx(alpha)
    assert found.fleiss == pytest.approx(1 - (1 - alpha) * 240 / 239)
    # texture: 96 of 120 outcomes accepted, 16 of 60 disputed; edge: 80 of 120, 20 of 60
    texture, edge = found.by_category["texture"].outcome, found.by_category["edge"].outcome
    assert texture.value == pytest.approx(1 - 119 * 2 * 16 / (2 * 96 * 24))
    assert edge.value == pytest.approx(1 - 119 * 2 * 20 / (2 * 80 * 40))
    # shape: 6 of 120 experts left it, each alone
    assert found.by_category["shape"].kept.value == pytest.approx(1 - 119 * 2 * 6 / (2 * 6 * 114))
    assert found.categories == pytest.approx((30 + 10 / 2 + 4) / 60)
    # kappa of the outcomes: 96 and 80 of 120 accepted
    (pair,) = found.pairs
    assert pair.experts == (first, second)
    by_chance = 0.8 * 2 / 3 + 0.2 / 3
    assert pair.kappa == pytest.approx((0.7 - by_chance) / (1 - by_chance))
    assert pair.alike.image_ids == ()
    assert (pair.alike.times, pair.alike.of_times) == (0, 60)
    # numbers of traces left: 2,2 | 2,1 | 1,1 | 2,1 | 0,0
    squares = 2 * (10 + 6)
    values = Counter({2: 60 + 10 + 6, 1: 10 + 20 + 6, 0: 8})
    spread = sum(a * b * (x - y) ** 2 for x, a in values.items() for y, b in values.items())
    assert found.traces.value == pytest.approx(1 - 119 * squares / spread)
    assert found.accuracy == {}


def check_teacher_quality(loop: Loop, first: str, second: str) -> None:
    found = loop.quality()
    overall = found.traces.overall
    assert (overall.accepted, overall.edited, overall.rejected, overall.added) == (176, 0, 64, 12)
    assert overall.accepted_share == pytest.approx(176 / 240)
    assert overall.added_share == pytest.approx(12 / 188)
    assert found.traces.by_category["texture"].accepted == 96
    assert found.paces[first].median_s == 30
    assert found.paces[second].mean_s == 45.5


# Adjudication


def adjudicate(loop: Loop, third: str) -> None:
    """The third expert settles all of 40-49 and four of 50-55."""
    desk = loop.work.desk
    queue = adjudication_queue(desk.database, desk.recipe)
    numbers = [loop.number_of(queued.image_id) for queued in queue]
    assert numbers == [*range(40, 50), *range(50, 56)]
    assert [queued.disagreement for queued in queue] == [1.0] * 10 + [0.75] * 6
    assert queue[0].disputed == ("edge", "texture")
    assert queue[-1].disputed == ("clarity", "shape", "texture")

    assert loop.push(TaskKind.ADJUDICATION) == 16
    tasks = loop.tasks(TaskKind.ADJUDICATION)
    assert [number for _, number, _ in tasks] == numbers
    for _, number, task in tasks[:14]:
        loop.settle(third, task, ("texture", "edge") if number < 50 else ("texture", "shape"))
    pull(desk)
    levels = chain_drafts(desk.database, desk.recipe).by_level
    assert levels == {
        ReviewLevel.AGREED: 44, ReviewLevel.ADJUDICATED: 14, ReviewLevel.EXPERT: 2,
    }  # fmt: skip
    left = adjudication_queue(desk.database, desk.recipe)
    assert [loop.number_of(queued.image_id) for queued in left] == [54, 55]


# Gold


def check_gold_of_reviews(loop: Loop, first: str, second: str) -> None:
    """20 more drafts, and a fifth of gold: the 14 that are settled. One leaves all, one texture."""
    desk = loop.work.desk
    loop.work.desk = replace(desk, recipe=recipe_of(gold_share=0.2))
    before = [draft.image_id for draft in loop.work.drafts]
    added = loop.work.add_drafts(*[FINDINGS] * 20)
    assert loop.push(TaskKind.REVIEW) == 20 + 14
    gold = [item for item in loop.tasks(TaskKind.REVIEW) if item[0].startswith("gold")]
    assert sorted(number for _, number, _ in gold) == list(range(40, 54))
    for _, _, task in gold:
        loop.answer_review(first, task, ("texture", "edge"), 30)
        loop.answer_review(second, task, ("texture",), 30)
    pull(desk)
    scores = loop.quality().gold[TaskKind.REVIEW]
    # right: texture, edge in 10, and texture, shape in 4
    assert scores == {
        first: review_score(precision=24 / 28, recall=24 / 28),
        second: review_score(precision=1.0, recall=14 / 28),
    }
    chained = chain_drafts(desk.database, desk.recipe)
    assert chained.new_chains == len(added)
    assert chained.by_level[ReviewLevel.ADJUDICATED] == 14
    assert loop.agreement().reviews.images == IMAGES
    assert before == [draft.image_id for draft in loop.work.drafts[:IMAGES]]


def review_score(*, precision: float, recall: float) -> GoldScore:
    return GoldScore(
        items=14,
        verdicts=0,
        right_verdicts=0,
        right_verdict_share=None,
        precision=precision,
        recall=recall,
    )


def check_gold_of_blind_labels(loop: Loop, first: str, second: str, third: str) -> None:
    """The third expert has not seen 0-39: eight of them are gold. Two verdicts are wrong."""
    listed = [draft.image_id for draft in loop.work.drafts[:8]]
    entries = tuple(GoldEntry(image=name, categories=("texture",)) for name in listed)
    desk = replace(loop.work.desk, recipe=recipe_of(gold_share=0.2, gold=entries))
    loop.work.desk = desk
    assert loop.push(TaskKind.BLIND) == 2 * 20 + 8
    for expert in (first, second):
        mine = loop.tasks(TaskKind.BLIND, expert)
        assert not [subject for subject, _, _ in mine if subject.startswith("gold")]
    gold = [item for item in loop.tasks(TaskKind.BLIND, third) if item[0].startswith("gold")]
    assert sorted(number for _, number, _ in gold) == list(range(8))
    for _, number, task in gold:
        answer = REAL if number < 2 else ("texture",) if number < 5 else ("texture", "edge")
        loop.answer_blind(third, task, answer)
    pull(desk)
    assert loop.quality().gold[TaskKind.BLIND] == {
        third: GoldScore(
            items=8,
            verdicts=8,
            right_verdicts=6,
            right_verdict_share=6 / 8,
            precision=6 / 9,
            recall=1.0,
        )
    }
    found = loop.agreement().blind
    assert found is not None
    assert found.by_expert[third].images == 20
