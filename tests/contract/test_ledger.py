"""What every ledger must do (teacher.ledger.Ledger), run against each that there is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.errors import PermanentError, StateError
from core.records import AttemptOutcome, TeacherReply, Usage
from db.engine import Database
from db.ledger import DatabaseLedger
from teacher.file_ledger import FileLedger
from teacher.ledger import Ledger, MemoryLedger
from tests.campaigns import start_campaign, store_images
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)


@dataclass(frozen=True)
class Book:
    """A ledger that can be opened again, and an image that it knows."""

    open: Callable[[float | None], Ledger]
    """with a money ceiling in USD, or none"""
    image_id: str

    def attempt(self, ledger: Ledger, request_hash: str = "a" * 64, usd: float = 1.0) -> str:
        return ledger.open_attempt(
            request_hash=request_hash,
            image_id=self.image_id,
            arm="main",
            model="sturgeon-2",
            reserved_usd=usd,
        )


def make_reply(request_hash: str = "a" * 64, content: str = "{}") -> TeacherReply:
    return TeacherReply(
        request_hash=request_hash,
        raw='{"any": "JSON – or not"',
        content=content,
        refusal=None,
        finish_reason="stop",
        model="sturgeon-2-2026",
        usage=Usage(prompt_tokens=7, cached_tokens=2, image_tokens=3, completion_tokens=5),
        request_id="req-1",
        latency_s=0.25,
    )


class LedgerContract:
    """The rules; `book` is a fixture of each class below."""

    def test_a_stored_reply_comes_back_as_it_was(self, book: Book) -> None:
        ledger = book.open(None)
        attempt_id = book.attempt(ledger)
        stored = ledger.store_reply(attempt_id, make_reply(), 0.5)
        assert stored == replace(make_reply(), attempt_id=attempt_id)
        assert book.open(None).stored_reply("a" * 64) == stored

    def test_a_reply_without_content_comes_back_as_it_was(self, book: Book) -> None:
        ledger = book.open(None)
        refusal = replace(make_reply(), content=None, refusal="I cannot.", request_id=None)
        stored = ledger.store_reply(book.attempt(ledger), refusal, 0.0)
        assert ledger.stored_reply("a" * 64) == stored
        assert stored.refusal == "I cannot."

    def test_what_was_not_answered_has_no_reply(self, book: Book) -> None:
        ledger = book.open(None)
        book.attempt(ledger)
        ledger.fail_attempt(book.attempt(ledger), AttemptOutcome.SERVER_ERROR, "500")
        assert ledger.stored_reply("a" * 64) is None

    def test_of_two_replies_that_of_the_newer_attempt_stands(self, book: Book) -> None:
        ledger = book.open(None)
        first, second = book.attempt(ledger), book.attempt(ledger)
        assert first != second
        ledger.store_reply(second, make_reply(content="early"), 0.1)
        ledger.store_reply(first, make_reply(content="late"), 0.1)
        stored = ledger.stored_reply("a" * 64)
        assert stored is not None
        assert (stored.content, stored.attempt_id) == ("early", second)

    def test_reservations_count_against_the_ceiling(self, book: Book) -> None:
        ledger = book.open(2.5)
        book.attempt(ledger)
        book.attempt(ledger)
        with pytest.raises(PermanentError, match=r"ceiling of \$2\.50"):
            book.attempt(ledger)

    def test_a_reservation_may_meet_the_ceiling_exactly(self, book: Book) -> None:
        ledger = book.open(1.0)
        attempts = [book.attempt(ledger, usd=0.25) for _ in range(4)]
        assert len(set(attempts)) == 4

    def test_a_reply_frees_what_it_did_not_cost(self, book: Book) -> None:
        ledger = book.open(1.0)
        ledger.store_reply(book.attempt(ledger), make_reply(), 0.25)
        book.attempt(ledger, "b" * 64, usd=0.75)
        with pytest.raises(PermanentError):
            book.attempt(ledger, "c" * 64, usd=0.01)

    def test_a_failed_attempt_is_refunded(self, book: Book) -> None:
        ledger = book.open(1.0)
        ledger.fail_attempt(book.attempt(ledger), AttemptOutcome.RATE_LIMITED, "429")
        book.attempt(ledger)
        with pytest.raises(PermanentError):
            book.attempt(ledger)

    def test_an_attempt_that_timed_out_keeps_its_reservation(self, book: Book) -> None:
        ledger = book.open(1.0)
        ledger.fail_attempt(book.attempt(ledger), AttemptOutcome.TIMED_OUT, "no reply in 60 s")
        with pytest.raises(PermanentError):
            book.attempt(ledger)

    def test_an_attempt_without_an_end_keeps_its_reservation(self, book: Book) -> None:
        book.attempt(book.open(1.0))
        with pytest.raises(PermanentError):
            book.attempt(book.open(1.0), "b" * 64)

    def test_a_call_above_the_ceiling_sets_nothing_aside(self, book: Book) -> None:
        ledger = book.open(1.0)
        with pytest.raises(PermanentError):
            book.attempt(ledger, usd=5.0)
        book.attempt(ledger, usd=1.0)

    def test_free_calls_pass_any_ceiling(self, book: Book) -> None:
        ledger = book.open(0.0)
        assert book.attempt(ledger, usd=0.0)

    @pytest.mark.parametrize("end", ["reply", "failure"])
    def test_an_attempt_ends_once(self, book: Book, end: str) -> None:
        ledger = book.open(None)
        attempt_id = book.attempt(ledger)
        if end == "reply":
            ledger.store_reply(attempt_id, make_reply(), 0.1)
        else:
            ledger.fail_attempt(attempt_id, AttemptOutcome.UNREACHABLE, "refused")
        with pytest.raises(StateError):
            ledger.store_reply(attempt_id, make_reply(), 0.1)
        with pytest.raises(StateError):
            ledger.fail_attempt(attempt_id, AttemptOutcome.SERVER_ERROR, "500")

    def test_an_unknown_attempt_cannot_end(self, book: Book) -> None:
        with pytest.raises(StateError):
            book.open(None).fail_attempt("attempt-none", AttemptOutcome.SERVER_ERROR, "500")

    def test_threads_never_pass_the_ceiling_together(self, book: Book) -> None:
        ledger = book.open(5.0)

        def try_once(number: int) -> bool:
            try:
                book.attempt(ledger, f"{number:064d}")
            except PermanentError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            passed = list(pool.map(try_once, range(24)))
        assert sum(passed) == 5


class TestMemoryLedger(LedgerContract):
    """The fake."""

    @pytest.fixture
    def book(self) -> Book:
        ledger = MemoryLedger()

        def open_ledger(ceiling_usd: float | None) -> Ledger:
            ledger.ceiling_usd = ceiling_usd
            return ledger

        return Book(open_ledger, "img-0")


class TestFileLedger(LedgerContract):
    """The one in a folder, opened anew each time."""

    @pytest.fixture
    def book(self, tmp_path: Path) -> Book:
        path = tmp_path / "ledger.jsonl"
        return Book(lambda ceiling_usd: FileLedger(path, ceiling_usd=ceiling_usd), "img-0")

    def test_half_a_line_of_a_killed_process_is_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        book = Book(lambda ceiling_usd: FileLedger(path, ceiling_usd=ceiling_usd), "img-0")
        book.attempt(book.open(None))
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:20])
        assert book.attempt(book.open(None), "b" * 64)
        assert FileLedger(path).committed_usd == 2.0


class TestDatabaseLedger(LedgerContract):
    """The real one, on each kind of database."""

    @pytest.fixture
    def book(self, database: Database) -> Book:  # noqa: F811
        (image,) = store_images(database, 1)
        campaign_id = start_campaign(database, [image])

        def open_ledger(ceiling_usd: float | None) -> Ledger:
            return DatabaseLedger(
                database, campaign_id, teacher="rehearsal", ceiling_usd=ceiling_usd
            )

        return Book(open_ledger, image.image_id)
