"""The use case of rewording: a text model says what chains say in other words, facts locked.

Every call stands in the ledger of the drafts: reserved, written down before it is made, its reply
stored before it is read. So the same request is never paid twice, and a run that was killed goes on
where it stood. What a check objects to is asked for again with the reason, and else left as it was.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, StateError, TransientError
from core.ids import sha256_text
from core.recipe import REHEARSAL, Recipe
from core.records import (
    REWRITING_ARM,
    ImageRecord,
    ReasoningChain,
    ReviewLevel,
    TeacherReply,
    TeacherRequest,
)
from core.rewriting import Rewriting, load_rewriting
from core.servers import server_of
from core.settings import Settings
from core.sources import choose_sources
from db.chains import count_chains, newest_chains
from db.engine import Database
from db.images import sources as read_sources
from db.ledger import DatabaseLedger, stored_replies
from db.limits import DatabaseLimiter
from db.statements import batches
from db.work import campaign_id_of
from instruct_builder.checks import NameFinder
from instruct_builder.facts import Locks
from instruct_builder.reword import ChainTexts, Proposal, read_proposals, texts_of
from instruct_builder.rewordings import Rewording, write_rewordings
from instruct_builder.templates import read_templates
from teacher.client import Teacher, is_loopback
from teacher.gate import Gate
from teacher.limits import Limiter
from teacher.policy import ask, reask_of
from teacher.prices import Price, cost, require_price
from teacher.rehearsal import start_rehearsal
from teacher.request import request_hash, worst_case_tokens

Pair = tuple[ReasoningChain, ImageRecord]
Report = Callable[[int, int], None]
"""chains done, chains in all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewritingPlan:
    """What a run would ask for."""

    chains: int
    to_ask: int
    """chains whose request was never answered"""
    most_usd: float
    """worst case of those requests, without the repeated ones"""
    model: str

    def sentence(self) -> str:
        """The plan in one line."""
        return (
            f"rewriting: {self.to_ask:,} of {self.chains:,} chains to be asked of {self.model}, "
            f"at most ${self.most_usd:.2f}"
        )


@dataclass(kw_only=True)
class RewritingSummary:
    """What a run did."""

    path: Path
    simulated: bool
    """the rehearsal teacher reworded: a program, no language model"""
    chains: int
    failed: Counter[str] = field(default_factory=Counter)
    """chains that were left as they are, by reason"""
    texts: int = 0
    reworded: int = 0
    """texts with one rewording at least"""
    rewordings: int = 0
    objections: Counter[str] = field(default_factory=Counter)
    """rejected rewordings by reason"""

    def as_json(self) -> str:
        """For programs."""
        return json.dumps({**asdict(self), "path": str(self.path)})

    def as_text(self) -> str:
        """For people; what was set aside is counted last."""
        simulated = " (simulated: phrases replaced by stated rules)" if self.simulated else ""
        lines = [
            f"{self.path}: {self.rewordings:,} rewordings of {self.reworded:,} of {self.texts:,} "
            f"texts of {self.chains:,} chains{simulated}"
        ]
        lines += [
            f"rejected: {number:,} because {why}" for why, number in self._most(self.objections)
        ]
        lines += [
            f"left as they are: {number:,} chains, {why}" for why, number in self._most(self.failed)
        ]
        return "\n".join(lines)

    def _most(self, counts: Counter[str]) -> list[tuple[str, int]]:
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def rewrite(  # noqa: PLR0913 - a use case and its options
    database: Database,
    recipe: Recipe,
    settings: Settings,
    out: Path,
    *,
    min_review: ReviewLevel | None = None,
    source: str | None = None,
    limit: int | None = None,
    budget_usd: float | None = None,
    report: Report = lambda done, total: None,
) -> RewritingSummary:
    """Reword the chains that a build would take, and write the table that `build` can be given.

    Raises ConfigError when there is no chain, or when a teacher on another machine would be asked
    and no ceiling was given; PermanentError when the ceiling is reached or the teacher refuses.
    """
    rewriting = load_rewriting(recipe.folder, settings)
    pairs = _read_pairs(database, recipe, min_review, source)[:limit]
    chains = [texts_of(chain, image, rewriting) for chain, image in pairs]
    plan = _plan(database, recipe, rewriting, chains)
    if plan.to_ask and budget_usd is None and not _is_local(rewriting):
        raise ConfigError(
            f"nothing was sent. The plan:\n  {plan.sentence()}\nGive a ceiling in US dollars to go "
            "on: `--budget 5`"
        )
    names = _names_in(pairs, recipe, rewriting)
    with _open_editor(database, recipe, rewriting, settings, budget_usd) as editor:
        found, summary = _reword_all(editor, chains, names, out, report)
    write_rewordings(found, out)
    return summary


def _read_pairs(
    database: Database, recipe: Recipe, min_review: ReviewLevel | None, source: str | None
) -> list[Pair]:
    """The newest chains of the sources that may be trained on."""
    whose: dict[str, Any] = {
        "campaign_id": campaign_id_of(recipe),
        "arms": recipe.settings.drafting.chain_arms,
        "min_review": min_review or recipe.settings.review.min_review,
    }
    with database.read() as session:
        known = read_sources(session)
        there = [name for name in known if count_chains(session, **whose, sources=[name])]
        names = [name for name in choose_sources(there, source) if known[name].may_train]
        pairs = list(newest_chains(session, **whose, sources=names)) if names else []
    if not pairs:
        raise ConfigError(
            f"recipe {recipe.name}: there is no chain at review level {whose['min_review']} to "
            "reword; review more of them, or pass --min-review draft"
        )
    return pairs


def _names_in(pairs: Sequence[Pair], recipe: Recipe, rewriting: Rewriting) -> NameFinder:
    """What no text of a build may name, and so no rewording."""
    names = {rewriting.model} | {name for chain, _ in pairs for name in chain.teachers}
    names |= {image.source for _, image in pairs}
    names |= {image.generator for _, image in pairs if image.generator}
    return NameFinder(names, read_templates(recipe), recipe.taxonomy)


def _plan(
    database: Database, recipe: Recipe, rewriting: Rewriting, chains: Sequence[ChainTexts]
) -> RewritingPlan:
    price = _price_of(rewriting, recipe)
    requests = {request_hash(chain.request): chain.request for chain in chains if chain.texts}
    server = server_of(rewriting.teacher)
    with database.read() as session:
        for block in batches(sorted(requests)):
            for reply in stored_replies(session, block, server=server):
                if reply is not None:
                    requests.pop(reply.request_hash, None)
    return RewritingPlan(
        chains=len(chains),
        to_ask=len(requests),
        most_usd=sum(cost(worst_case_tokens(r, price.image), price) for r in requests.values()),
        model=rewriting.model,
    )


def _is_local(rewriting: Rewriting) -> bool:
    return rewriting.teacher == REHEARSAL or is_loopback(rewriting.teacher)


def _price_of(rewriting: Rewriting, recipe: Recipe) -> Price:
    return require_price(
        rewriting.model, is_local=_is_local(rewriting), recipe_folder=recipe.folder
    )


@dataclass(frozen=True, kw_only=True)
class _Editor:
    """The teacher that rewords, and under what terms."""

    teacher: Teacher
    ledger: DatabaseLedger
    price: Price
    gate: Gate
    rewriting: Rewriting
    locks: Locks
    stop: threading.Event

    def ask(self, request: TeacherRequest, image_id: str) -> TeacherReply:
        """The stored reply, or that of a new call."""
        return ask(
            self.teacher,
            request,
            ledger=self.ledger,
            image_id=image_id,
            arm=REWRITING_ARM,
            price=self.price,
            max_tries=self.rewriting.max_tries,
            stop=self.stop,
            gate=self.gate,
        )


@contextmanager
def _open_editor(
    database: Database,
    recipe: Recipe,
    rewriting: Rewriting,
    settings: Settings,
    budget_usd: float | None,
) -> Iterator[_Editor]:
    with ExitStack() as stack:
        address, key = rewriting.teacher, settings.openai_api_key
        if rewriting.teacher == REHEARSAL:
            log = settings.fakescope_home / "rehearsal.jsonl"
            address, key = stack.enter_context(start_rehearsal(recipe.folder, log=log)), None
        secret = key.get_secret_value() if key else None
        ledger = DatabaseLedger(
            database,
            campaign_id_of(recipe),
            teacher=rewriting.teacher,
            ceiling_usd=budget_usd,
            usd_per_day=settings.usd_per_day,
        )
        yield _Editor(
            teacher=stack.enter_context(Teacher(address, secret, timeout_s=rewriting.timeout_s)),
            ledger=ledger,
            price=_price_of(rewriting, recipe),
            gate=Gate(_open_limiter(rewriting, settings, database)),
            rewriting=rewriting,
            locks=Locks(rewriting, recipe.taxonomy),
            stop=threading.Event(),
        )


def _open_limiter(rewriting: Rewriting, settings: Settings, database: Database) -> Limiter | None:
    """Counts the calls to this teacher together with those of the workers that draft."""
    if rewriting.limits is None:
        return None
    teacher, model = server_of(rewriting.teacher), rewriting.model
    address = settings.limits_redis_address
    if address is not None:
        from teacher.redis_limits import RedisLimiter

        return RedisLimiter(address, rewriting.limits, teacher=teacher, model=model)
    return DatabaseLimiter(database, rewriting.limits, teacher=teacher, model=model)


def _reword_all(
    editor: _Editor, chains: Sequence[ChainTexts], names: NameFinder, out: Path, report: Report
) -> tuple[list[Rewording], RewritingSummary]:
    """Many chains at a time; the first failure that concerns more than one chain is raised."""
    simulated = editor.rewriting.teacher == REHEARSAL
    summary = RewritingSummary(path=out, simulated=simulated, chains=len(chains))
    found: list[Rewording] = []
    with ThreadPoolExecutor(editor.rewriting.calls_in_flight) as pool:
        told = {
            pool.submit(_reword, editor, chain, names): chain for chain in chains if chain.texts
        }
        try:
            for number, future in enumerate(as_completed(told), start=1):
                outcome = future.result()
                found += outcome.rewordings
                _count(outcome, told[future], summary)
                report(number, len(told))
        except BaseException:
            editor.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return found, summary


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one chain."""

    rewordings: list[Rewording]
    rejected: list[Proposal]
    failure: str = ""


def _reword(editor: _Editor, chain: ChainTexts, names: NameFinder) -> _Outcome:
    """In a thread of the pool: ask, check, and ask again for what was rejected."""
    accepted: dict[str, dict[str, str]] = {text: {} for text in chain.texts}
    rejected: list[Proposal] = []
    request, failure = chain.request, ""
    for _ in range(1 + editor.rewriting.max_reasks):
        try:
            reply = editor.ask(request, chain.image.image_id)
        except (DataError, StateError, TransientError) as error:
            if editor.stop.is_set():
                raise
            failure = str(error)
            break
        proposals = list(read_proposals(reply, chain, editor.locks, names))
        for proposal in proposals:
            if proposal.objection is None:
                accepted[proposal.original].setdefault(proposal.text, reply.model)
        refused = [proposal for proposal in proposals if proposal.objection is not None]
        rejected += refused
        if not refused:
            break
        request = reask_of(chain.request, _reasons(refused))
    return _Outcome(_as_rewordings(chain, accepted, editor.rewriting.variants), rejected, failure)


def _reasons(refused: Sequence[Proposal]) -> str:
    return "; ".join(dict.fromkeys(f"{p.text[:60]!r}: {p.objection}" for p in refused))


def _as_rewordings(
    chain: ChainTexts, accepted: dict[str, dict[str, str]], most: int
) -> list[Rewording]:
    return [
        Rewording(
            chain_id=chain.chain_id,
            text_sha256=sha256_text(original),
            variant=variant,
            text=text,
            model=model,
        )
        for original, found in accepted.items()
        for variant, (text, model) in enumerate(list(found.items())[:most], start=1)
    ]


def _count(outcome: _Outcome, chain: ChainTexts, summary: RewritingSummary) -> None:
    summary.texts += len(chain.texts)
    summary.rewordings += len(outcome.rewordings)
    summary.reworded += len({rewording.text_sha256 for rewording in outcome.rewordings})
    summary.objections.update(_kind_of(p.objection or "") for p in outcome.rejected)
    if outcome.failure:
        summary.failed[outcome.failure] += 1


def _kind_of(objection: str) -> str:
    """An objection without its particulars."""
    what, changed, _ = objection.partition(" changed from ")
    return f"{what} changed" if changed else re.sub(r"\d+(?:\.\d+)?", "n", what)
