"""Drafting in batches from end to end: what comes back, what is paid, what a crash costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, PermanentError
from core.recipe import DEFAULT_RECIPE, BatchSettings
from core.records import AttemptOutcome, BatchState
from core.settings import load_settings
from db.ledger import attempts_by_outcome, spent
from db.work import claiming_workers
from generation.campaign import progress
from generation.janitor import tidy
from teacher.batch import BatchTeacher, RemoteBatch
from teacher.failures import TimedOut
from teacher.faults import Faults
from teacher.rehearsal import Rehearsal, load_rehearsal
from tests.databases import empty_tables, postgresql_tables, postgresql_url  # noqa: F401
from tests.e2e.batches import POINTS, Bench, open_bench, serve_again
from tests.e2e.project import ROOT, clean_environment

IMAGES = 12


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return load_rehearsal(DEFAULT_RECIPE)


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


def told(faults: str, **others: object) -> Faults:
    return Faults.model_validate({"batch_fault": faults, **others})


def outcomes(bench: Bench) -> dict[AttemptOutcome, int]:
    with bench.database.read() as session:
        return attempts_by_outcome(session, bench.prepare().campaign_id)


def assert_all_drafted(bench: Bench, *, asked_twice: int = 0) -> None:
    """Every image has its draft, no reply was asked for again, nothing is left anywhere."""
    assert len(bench.drafts()) == IMAGES
    assert bench.quarantined() == []
    assert sum(bench.asked().values()) == IMAGES + asked_twice
    assert all(batch.deleted_at for batch in bench.batches())
    with bench.database.read() as session:
        campaign_id = bench.prepare().campaign_id
        assert claiming_workers(session, campaign_id) == []
        assert spent(session, campaign_id).reserved_usd == 0.0


def test_a_batch_is_sent_in_one_run_and_fetched_in_another(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=Faults(batch_seconds=3600)) as bench:
        run = bench.run(wait=False)
        assert (run.sent, run.drafted, run.waiting) == (1, 0, IMAGES)
        assert bench.run(wait=False).sent == 0, "what waits for a batch is not sent again"
        tidy(bench.database, bench.prepare().campaign_id)
        assert bench.run(wait=False).waiting == IMAGES
        (batch,) = bench.batches()
        assert (batch.state, batch.num_lines) == (BatchState.VALIDATING, IMAGES)
        campaign = bench.prepare()
        assert campaign.due == 0
        assert progress(bench.database, campaign).done == 0
    with serve_again(tmp_path, rehearsal, bench) as bench:
        assert bench.run().drafted == IMAGES
        assert_all_drafted(bench)


def test_nothing_stays_with_the_teacher(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        bench.run()
        assert_all_drafted(bench)
        assert list((tmp_path / "batches" / "files").iterdir()) == []
        assert not list(bench.settings.fakescope_home.glob("*.jsonl"))


def test_files_are_no_larger_than_the_recipe_says(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        bench.with_drafting(batch=BatchSettings(lines=5), claim_size=4).run()
        assert [batch.num_lines for batch in bench.batches()] == [5, 5, 2]
        assert_all_drafted(bench)


def test_files_hold_no_more_bytes_than_the_recipe_says(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        bench.with_drafting(batch=BatchSettings(bytes=60_000)).run()
        batches = bench.batches()
        assert len(batches) > 1
        assert all(batch.num_bytes <= 60_000 for batch in batches)
        assert_all_drafted(bench)


def test_a_request_that_fits_no_file_is_set_aside(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        bench.with_drafting(batch=BatchSettings(bytes=100)).run()
        assert len(bench.quarantined()) == IMAGES
        assert "larger than a batch may be" in bench.quarantined()[0]
        assert bench.batches() == []


def test_stored_replies_are_used_without_sending(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """A reply that was paid for in another campaign answers the same request in this one."""
    with open_bench(tmp_path, rehearsal) as bench:
        bench.run()
        bench.recipe = bench.recipe.model_copy(update={"drafting_digest": "0" * 64})
        assert bench.drafts() == []
        run = bench.run()
        assert (run.sent, run.drafted) == (0, IMAGES)
        assert sum(bench.asked().values()) == IMAGES


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_was_run_is_kept_and_the_rest_is_sent_again(
    rehearsal: Rehearsal, tmp_path: Path, end: str
) -> None:
    with open_bench(tmp_path, rehearsal, faults=told(end, batch_share=0.25)) as bench:
        bench.run()
        first, second = bench.batches()
        assert (first.state, second.state) == (BatchState(end), BatchState.COMPLETED)
        assert (first.num_lines, second.num_lines) == (IMAGES, IMAGES - 3)
        assert outcomes(bench) == {
            AttemptOutcome.REPLIED: IMAGES,
            AttemptOutcome.NOT_RUN: IMAGES - 3,
        }
        assert_all_drafted(bench)


def test_odd_lines_are_reported_and_the_good_ones_kept(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=told("spoilt")) as bench:
        bench.run()
        assert_all_drafted(bench)
    reports = [line.partition(": ")[2] for line in bench.told]
    assert "1 lines that repeat another one" in reports
    assert "1 lines that answer no request of this batch" in reports
    assert "1 lines of no use: no JSON" in reports
    assert "1 lines of no use: no custom_id" in reports


def test_a_batch_that_is_refused_as_a_whole_ends_the_run(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=told("failed")) as bench:
        with pytest.raises(PermanentError, match="simulated failure of the validation"):
            bench.run()
        assert outcomes(bench) == {AttemptOutcome.NOT_RUN: IMAGES}
        bench.run()
        assert_all_drafted(bench)


def test_failures_that_may_pass_are_tried_again_a_bounded_number_of_times(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=Faults(rate_500=0.3, rate_429=0.3)) as bench:
        bench.run()
        tries = bench.recipe.settings.drafting.max_tries
        assert len(bench.drafts()) + len(bench.quarantined()) == IMAGES
        assert len(bench.drafts()) >= IMAGES / 2
        assert all(f"failed {tries} times" in reason for reason in bench.quarantined())
        assert max(bench.asked().values()) <= tries
        assert len(bench.batches()) > 1


def test_unusable_replies_are_asked_again_with_the_reason_then_set_aside(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    faults = Faults(rate_refusal=0.2, rate_truncated=0.2, rate_junk=0.2, rate_wrong_verdict=0.1)
    with open_bench(tmp_path, rehearsal, faults=faults) as bench:
        bench.run()
        assert len(bench.drafts()) + len(bench.quarantined()) == IMAGES
        assert bench.drafts()
        assert set(bench.asked().values()) == {1}, "a stored reply is never asked for again"
        asked = sum(bench.asked().values())
        assert outcomes(bench) == {AttemptOutcome.REPLIED: asked}
        assert asked > IMAGES
        num_batches = len(bench.batches())
        assert num_batches <= bench.recipe.settings.drafting.max_reasks + 1


def test_postgresql_holds_batches_too(
    rehearsal: Rehearsal,
    tmp_path: Path,
    postgresql_tables: str,  # noqa: F811
) -> None:
    faults = told("expired", batch_share=0.5, rate_refusal=0.3, rate_500=0.2)
    empty_tables(load_settings(database_url=postgresql_tables))
    with open_bench(tmp_path, rehearsal, faults=faults, database_url=postgresql_tables) as bench:
        bench.with_drafting(batch=BatchSettings(lines=5), max_tries=9, max_reasks=9).run()
        assert len(bench.drafts()) == IMAGES
        assert all(batch.deleted_at for batch in bench.batches())


def test_a_line_without_an_answer_keeps_its_reservation_and_is_sent_again(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=Faults(rate_hang=0.3)) as bench:
        bench.run()
        assert len(bench.drafts()) == IMAGES
        assert outcomes(bench)[AttemptOutcome.UNKNOWN] > 0
    assert any("without an answer" in line for line in bench.told)


def test_a_key_that_is_refused_changes_nothing(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """Neither is anything sent again for a batch that another account may hold."""
    with open_bench(tmp_path, rehearsal, faults=Faults(batch_seconds=3600)) as bench:
        bench.run(wait=False)
        shutil.rmtree(tmp_path / "batches")
    with serve_again(tmp_path, rehearsal, bench) as bench:
        with pytest.raises(PermanentError, match="does not know batch_"):
            bench.run()
        assert bench.prepare().due == 0


def test_a_batch_that_its_teacher_forgot_is_given_up_and_its_money_stays_set_aside(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, faults=Faults(batch_seconds=3600)) as bench:
        bench.give_price(tmp_path, {"input": 100, "cached_input": 100, "output": 100})
        bench.run(wait=False)
        (lost,) = bench.batches()
        with pytest.raises(ConfigError, match=f"the teacher knows it as {lost.remote_id}"):
            bench.give_up(lost.batch_id)
        with pytest.raises(ConfigError, match="waits for no batch 'batch-none'"):
            bench.give_up("batch-none")
        campaign_id = bench.prepare().campaign_id
        with bench.database.read() as session:
            reserved_usd = spent(session, campaign_id).reserved_usd
        shutil.rmtree(tmp_path / "batches")
    with serve_again(tmp_path, rehearsal, bench) as bench:
        with pytest.raises(PermanentError, match=f"generation give-up {lost.batch_id}"):
            bench.run()
        bench.give_up(lost.batch_id)
        assert bench.prepare().due == IMAGES
        bench.run()
        assert len(bench.drafts()) == IMAGES
        assert outcomes(bench) == {
            AttemptOutcome.REPLIED: IMAGES,
            AttemptOutcome.UNKNOWN: IMAGES,
        }
        with bench.database.read() as session:
            money = spent(session, campaign_id)
            assert claiming_workers(session, campaign_id) == []
        assert money.reserved_usd == pytest.approx(reserved_usd)
        assert money.spent_usd > 0


def test_a_lost_batch_does_not_hold_up_the_others(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        in_three = bench.with_drafting(batch=BatchSettings(lines=4))
        in_three.run(wait=False)
        lost, *others = bench.batches()
    (forgotten,) = (tmp_path / "batches").rglob(f"{lost.remote_id}.json")
    forgotten.unlink()
    with serve_again(tmp_path, rehearsal, bench):
        with pytest.raises(PermanentError, match=f"does not know {lost.remote_id}"):
            in_three.run()
        waiting = [batch.batch_id for batch in bench.batches() if batch.ingested_at is None]
    assert (waiting, len(others)) == ([lost.batch_id], 2)


def test_a_teacher_that_cannot_be_reached_stops_the_command(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        pass
    with pytest.raises(ConfigError, match="no teacher answers"):
        bench.run()


def test_the_ceiling_holds_and_what_fits_is_sent(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        price = {"input": 100, "cached_input": 100, "output": 100, "batch": 0.5}
        bench.give_price(tmp_path, price)
        plan = bench.prepare().plans[0].usd
        with pytest.raises(PermanentError, match="ceiling"):
            bench.run(wait=False, budget_usd=plan / 2)
        (batch,) = bench.batches()
        assert 0 < batch.num_lines < IMAGES
        bench.run(budget_usd=plan)
        assert_all_drafted(bench)
        with bench.database.read() as session:
            money = spent(session, bench.prepare().campaign_id)
    full = (money.prompt_tokens + money.completion_tokens) * 100 / 1e6
    assert money.spent_usd == pytest.approx(full / 2)


def spoil_first_line(monkeypatch: pytest.MonkeyPatch, status: int, code: str) -> None:
    """Let the first line of the first file that is fetched be a failure instead."""
    fetch, is_first = BatchTeacher.lines, iter([True])

    def lines(teacher: BatchTeacher, file_id: str) -> Iterator[bytes]:
        for line in fetch(teacher, file_id):
            entry = json.loads(line)
            if next(is_first, False):
                body = {"error": {"code": code, "message": "no"}}
                entry["response"] = {"status_code": status, "body": body}
            yield json.dumps(entry).encode()

    monkeypatch.setattr(BatchTeacher, "lines", lines)


def test_an_image_that_the_teacher_rejects_is_set_aside(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_first_line(monkeypatch, 400, "image_parse_error")
    with open_bench(tmp_path, rehearsal) as bench:
        bench.run()
        assert len(bench.drafts()) == IMAGES - 1
        assert bench.quarantined() == ["the teacher answered 400: no"]


def test_a_spent_quota_ends_the_run_and_nothing_that_was_answered_is_lost(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_first_line(monkeypatch, 429, "insufficient_quota")
    with open_bench(tmp_path, rehearsal) as bench:
        with pytest.raises(PermanentError, match="429"):
            bench.run()
        assert outcomes(bench) == {
            AttemptOutcome.REPLIED: IMAGES - 1,
            AttemptOutcome.REJECTED: 1,
        }
        bench.run()
        assert_all_drafted(bench, asked_twice=1)


def test_a_full_queue_is_waited_for(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two batches is refused while the first one runs."""
    ask, refused = BatchTeacher.batch, set[str]()

    def batch(teacher: BatchTeacher, remote_id: str) -> RemoteBatch:
        remote = ask(teacher, remote_id)
        names = [one.remote_id for one in bench.batches()]
        if remote_id == names[0] and len(refused) == 0:
            return replace(remote, state=BatchState.IN_PROGRESS)
        if remote_id == names[1]:
            refused.add(remote_id)
            errors = ((None, "token_limit_exceeded: too many tokens in the queue"),)
            return replace(remote, state=BatchState.FAILED, output_file_id=None, errors=errors)
        return remote

    monkeypatch.setattr(BatchTeacher, "batch", batch)
    with open_bench(tmp_path, rehearsal) as bench:
        bench.with_drafting(batch=BatchSettings(lines=6)).run()
        assert [one.state for one in bench.batches()] == [
            BatchState.COMPLETED,
            BatchState.FAILED,
            BatchState.COMPLETED,
        ]
        assert len(bench.drafts()) == IMAGES
        assert any("queue is full" in line for line in bench.told)


def fail_once(monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool) -> None:
    """Let a call to the teacher fail once in passing, before or after it did its work."""
    real, is_first = getattr(BatchTeacher, name), iter([True])

    def call(*arguments: Any, **options: Any) -> Any:
        if not next(is_first, False):
            return real(*arguments, **options)
        if after:
            real(*arguments, **options)
        raise TimedOut("no reply in 120 s")

    monkeypatch.setattr(BatchTeacher, name, call)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["upload", "create_batch", "batch", "delete_file"])
def test_a_call_that_fails_in_passing_is_made_again(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    fail_once(monkeypatch, name, after=after)
    with open_bench(tmp_path, rehearsal) as bench:
        bench.run()
        assert_all_drafted(bench)


def test_without_waiting_a_failure_in_passing_is_the_end(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, "create_batch", after=True)
    with open_bench(tmp_path, rehearsal) as bench:
        with pytest.raises(TimedOut):
            bench.run(wait=False)
        bench.run()
        assert_all_drafted(bench)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_continued_and_nothing_is_sent_twice(
    rehearsal: Rehearsal, tmp_path: Path, point: str
) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        killed = subprocess.run(
            [sys.executable, "-m", "tests.e2e.batches", point],
            cwd=ROOT,
            env={**clean_environment(), **bench.environment()},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
        bench.run()
        assert_all_drafted(bench)
        not_run = outcomes(bench).get(AttemptOutcome.NOT_RUN, 0)
        assert not_run == (IMAGES if point == "before the upload" else 0)


def test_two_runs_at_once_send_nothing_twice(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with open_bench(tmp_path, rehearsal) as bench:
        command = [sys.executable, "-m", "generation", "draft", "--batch", "--wait"]
        environment = {**clean_environment(), **bench.environment()}
        runs = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for run in runs:
            out, _ = run.communicate(timeout=300)
            assert run.returncode == 0, out
        bench.run()
        assert_all_drafted(bench)
