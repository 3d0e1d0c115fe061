"""Rewording on a real database with the rehearsal teacher: checked, paid for once, resumed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, PermanentError
from core.ids import sha256_text
from core.recipe import DEFAULT_RECIPE
from core.records import REWRITING_ARM, AttemptOutcome, ReviewLevel
from core.rewriting import load_rewriting
from core.settings import Settings, load_settings
from db.engine import Database
from db.ledger import attempts
from db.reports import costs
from db.work import campaign_id_of
from imaging.store import ImageStore
from instruct_builder.build import build
from instruct_builder.facts import Locks
from instruct_builder.lineage import as_text, trace
from instruct_builder.rewordings import read_rewordings
from instruct_builder.rewrite import RewritingSummary, rewrite
from instruct_builder.shards import ShardSet, sha256_of
from instruct_builder.takedown import take_down
from teacher.faults import Faults
from teacher.loopback import serve
from teacher.rehearsal import load_rehearsal
from tests.unit.instruct_builder.specimens import Pair, make_pair, recipe
from tests.unit.instruct_builder.stored import store_pairs

DRAFT = ReviewLevel.DRAFT
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIDENCE = (
    "A lattice of two pixels runs through the frame; it amounts to {n} grey levels.",
    "The grain ends at {n} per cent of the contrast, as if the surfaces were plastic.",
)


def pairs() -> list[Pair]:
    """Chains whose texts the rules of the recipe can reword."""
    made = []
    for number in range(12):
        chain, image = make_pair(f"image {number}", categories=["texture", "edge"])
        findings = tuple(
            replace(finding, evidence=text.format(n=number + 2))
            for finding, text in zip(chain.reasoning.findings, EVIDENCE, strict=True)
        )
        made.append((replace(chain, reasoning=replace(chain.reasoning, findings=findings)), image))
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATABASE_URL", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def database(database: Database) -> Database:
    """With chains in it."""
    store_pairs(database, pairs())
    return database


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "rewordings.parquet"


def teacher(**faults: float) -> AbstractContextManager[str]:
    return serve(load_rehearsal(DEFAULT_RECIPE), faults=Faults(**faults))


def settings_for(base_url: str | None, model: str = "rehearsal") -> Settings:
    return load_settings(
        openai_base_url=base_url, openai_model=model, fakescope_home=Path("nowhere")
    )


def run(database: Database, base_url: str, out: Path, **options: Any) -> RewritingSummary:
    settings = settings_for(base_url)
    return rewrite(database, recipe(), settings, out, min_review=DRAFT, **options)


def calls(database: Database) -> int:
    """Calls for rewordings that brought a reply."""
    with database.read() as session:
        made = [a for a in attempts(session) if a.arm == REWRITING_ARM]
    assert all(a.outcome is AttemptOutcome.REPLIED for a in made)
    return len(made)


def test_every_rewording_keeps_the_facts_of_its_original(database: Database, out: Path) -> None:
    with teacher() as base_url:
        summary = run(database, base_url, out)
    assert (summary.chains, summary.texts, summary.reworded) == (12, 36, 24)
    assert summary.objections == {"it says the same in the same words": 2 * 2 * 12}
    assert calls(database) == 2 * 12
    originals = {
        sha256_text(finding.evidence): finding.evidence
        for chain, _ in pairs()
        for finding in chain.reasoning.findings
    }
    rewriting = load_rewriting(DEFAULT_RECIPE, settings_for(None))
    locks = Locks(rewriting, recipe().taxonomy)
    rows = read_rewordings(out).to_pylist()
    assert len(rows) == summary.rewordings >= 24
    for row in rows:
        assert locks.objection(originals[row["text_sha256"]], row["text"]) is None
        assert row["model"] == "rehearsal"


def test_a_second_run_asks_nobody_and_gives_the_same_bytes(database: Database, out: Path) -> None:
    with teacher() as base_url:
        run(database, base_url, out)
        made, before = calls(database), out.read_bytes()
        run(database, base_url, out)
    assert calls(database) == made
    assert out.read_bytes() == before


def test_turned_facts_are_rejected_and_asked_for_again_with_the_reason(
    database: Database, out: Path
) -> None:
    with teacher(rate_turned_fact=1.0) as base_url:
        summary = run(database, base_url, out)
    assert summary.rewordings == 0
    assert read_rewordings(out).num_rows == 0
    assert calls(database) == 2 * 12
    assert {"numbers, places and degrees changed", "it has n negations instead of n"} & set(
        summary.objections
    )
    assert "rejected: " in summary.as_text()


def test_what_was_answered_once_is_asked_of_nobody_again(database: Database, out: Path) -> None:
    with teacher() as base_url:
        run(database, base_url, out)
    whole = out.read_bytes()
    again = run(database, base_url, out)  # nobody answers there any more
    assert out.read_bytes() == whole
    assert again.failed == {}


def test_replies_that_cannot_be_used_leave_their_chains_as_they_are(
    database: Database, out: Path
) -> None:
    with teacher(rate_refusal=0.5, rate_junk=0.5) as base_url:
        summary = run(database, base_url, out)
    assert summary.rewordings == 0
    assert {"the teacher refused", "the reply does not fit the schema"} <= set(summary.objections)


def test_a_run_that_is_stopped_goes_on_where_it_stood(database: Database, out: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with teacher() as base_url:
        with pytest.raises(KeyboardInterrupt):
            run(database, base_url, out, report=stop)
        assert not out.exists()
        run(database, base_url, out)
    assert calls(database) == 2 * 12


def test_a_teacher_elsewhere_is_not_asked_without_a_ceiling(database: Database, out: Path) -> None:
    settings = settings_for("https://teacher.example/v1", "gpt-5.4-mini")
    with pytest.raises(
        ConfigError, match=r"nothing was sent.*\n.*12 of 12 chains to be asked of gpt-5\.4-mini, at"
    ):
        rewrite(database, recipe(), settings, out, min_review=DRAFT)
    assert calls(database) == 0


def test_the_ceiling_holds_for_rewording_too(database: Database, out: Path) -> None:
    with teacher() as base_url, pytest.raises(PermanentError, match="the ceiling of"):
        settings = settings_for(base_url, "gpt-5.4-mini")
        rewrite(database, recipe(), settings, out, min_review=DRAFT, budget_usd=0.000001)
    assert not out.exists()


def test_without_a_chain_there_is_nothing_to_reword(database: Database, out: Path) -> None:
    with pytest.raises(ConfigError, match="no chain at review level expert to reword"):
        rewrite(database, recipe(), settings_for(None), out, min_review=ReviewLevel.EXPERT)


def test_a_limit_rewords_so_many_chains(database: Database, out: Path) -> None:
    with teacher() as base_url:
        assert run(database, base_url, out, limit=3).chains == 3
    assert calls(database) == 2 * 3


def test_the_recipe_says_who_rewords(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no rewriting\.yaml, so nothing is reworded"):
        load_rewriting(tmp_path, settings_for(None))
    with pytest.raises(ConfigError, match="OPENAI_MODEL"):
        load_rewriting(
            DEFAULT_RECIPE,
            load_settings(openai_base_url="http://127.0.0.1:1/v1", openai_model=None),
        )


def test_a_reworded_set_tells_whose_words_it_is_in_and_lets_go_of_an_image(
    database: Database, out: Path, tmp_path: Path
) -> None:
    with teacher() as base_url:
        run(database, base_url, out)
    store, folder = ImageStore(tmp_path / "images"), tmp_path / "set"
    manifest = build(database, recipe(), store, folder, min_review=DRAFT, rewordings=out).manifest
    assert manifest.rewordings == sha256_of(out)
    assert [(editor.name, editor.simulated) for editor in manifest.editors] == [("rehearsal", True)]
    said = " ".join(
        turn["content"]
        for table in ShardSet.open(folder).rows()
        for row in table.to_pylist()
        for turn in row["messages"]
    )
    assert any(row["text"] in said for row in read_rewordings(out).to_pylist())
    row = next(ShardSet.open(folder).rows()).to_pylist()[0]
    told = "\n".join(as_text(trace(row["instruction_id"], folder, database, store)))
    assert "reworded by rehearsal: some texts of the set stand in other words" in told
    assert f"table {sha256_of(out)[:12]}, 2 calls about the image" in told
    with database.read() as session:
        (line,) = [arm for arm in costs(session, campaign_id_of(recipe()), (), now=NOW).arms
                   if arm.arm == REWRITING_ARM]  # fmt: skip
    assert (line.calls, line.model, line.is_simulated) == (2 * 12, "rehearsal", True)
    before = read_rewordings(out).num_rows
    asked = {"reason": "asked", "now": NOW, "work": folder.parent / "uploads", "rewordings": [out]}
    done = take_down(database, store, row["image_id"], shards=[folder], **asked)
    assert 0 < done.reworded[str(out)] == before - read_rewordings(out).num_rows
    assert row["chain_id"] not in read_rewordings(out)["chain_id"].to_pylist()
    again = take_down(database, store, row["image_id"], **asked)
    assert again.reworded == {str(out): 0}
