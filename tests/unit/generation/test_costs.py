"""The costs of a campaign as a person reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.records import AttemptOutcome
from core.settings import Settings
from db.ledger import Spending
from db.reports import ArmCosts, Costs, DayCosts
from generation.__main__ import app
from generation.costs import as_text, usd

SPENDING = Spending(
    spent_usd=1234.5,
    reserved_usd=0.02,
    attempts=12_345,
    replies=12_000,
    unknown=1,
    prompt_tokens=2_000_000,
    cached_tokens=1_000,
    image_tokens=1_500_000,
    completion_tokens=300_000,
    reasoning_tokens=0,
)


def make_arm(**changes: Any) -> ArmCosts:
    values: dict[str, Any] = {
        "arm": "main",
        "model": "sturgeon-2",
        "is_simulated": False,
        "calls": 12_345,
        "drafts": 11_000,
        "due": 900,
        "spent_usd": 1234.5,
        "reserved_usd": 0.02,
        "usd_per_draft": 0.1122,
        "forecast_usd": 1335.5,
    }
    return ArmCosts(**{**values, **changes})


def make_costs(**changes: Any) -> Costs:
    values: dict[str, Any] = {
        "campaign_id": "campaign-1",
        "ceiling_usd": 2000.0,
        "today": "2026-03-02",
        "today_usd": 34.5,
        "usd_per_day": 50.0,
        "spending": SPENDING,
        "usd_per_draft": 0.1122,
        "forecast_usd": 1335.5,
        "arms": [make_arm()],
        "days": [
            DayCosts(day="2026-03-01", calls=12_000, spent_usd=1200, reserved_usd=0),
            DayCosts(day="2026-03-02", calls=345, spent_usd=34.5, reserved_usd=0.02),
        ],
        "by_outcome": {AttemptOutcome.REPLIED: 12_000, AttemptOutcome.RATE_LIMITED: 345},
    }
    return Costs(**{**values, **changes})


def test_costs_read_as_tables() -> None:
    assert "\n".join(as_text(make_costs())) == (
        """\
campaign campaign-1

arm   model        calls  drafts  due        spent  reserved  per draft     forecast
main  sturgeon-2  12,345  11,000  900  $1,234.5000   $0.0200    $0.1122  $1,335.5000
all               12,345  11,000  900  $1,234.5000   $0.0200    $0.1122  $1,335.5000

day (UTC)    calls        spent  reserved
2026-03-01  12,000  $1,200.0000   $0.0000
2026-03-02     345     $34.5000   $0.0200

ceiling of the campaign: $2,000.0000
ceiling of a day: $50.0000; today (2026-03-02 UTC) all campaigns together have committed $34.5000
calls by outcome: 12,000 replied, 345 rate_limited
tokens: 2,000,000 in (1,500,000 of images, 1,000 cached), 300,000 out (0 of reasoning)"""
    )


def test_costs_of_a_rehearsal_are_called_simulated() -> None:
    arm = make_arm(is_simulated=True, model="rehearsal", spent_usd=0.0, reserved_usd=0.0)
    lines = list(as_text(make_costs(arms=[arm, make_arm(arm="other")])))
    assert lines[3].startswith("main   rehearsal (simulated)")
    assert lines[4].startswith("other  sturgeon-2             ")
    assert lines[-1].startswith("simulated: ")


def test_what_is_not_known_and_not_set_is_said() -> None:
    costs = make_costs(
        ceiling_usd=None,
        usd_per_day=None,
        arms=[make_arm(usd_per_draft=None, forecast_usd=None)],
        days=[],
        by_outcome={},
    )
    text = "\n".join(as_text(costs))
    assert "$0.0200          -            -\n" in text
    assert "none (set one with --budget)" in text
    assert "none (set one in USD_PER_DAY)" in text
    assert "calls by outcome: none" in text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, "-"), (0.0, "$0.0000"), (0.00012, "$0.0001"), (1e6, "$1,000,000.0000")],
)
def test_dollars_show_a_hundredth_of_a_cent(amount: float | None, text: str) -> None:
    assert usd(amount) == text


def test_the_command_prints_a_table_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("USD_PER_DAY", "7.5")
    text = CliRunner().invoke(app, ["costs"])
    printed = CliRunner().invoke(app, ["costs", "--json"])
    assert (text.exit_code, printed.exit_code) == (0, 0), text.output + printed.output
    assert "rehearsal (simulated)" in text.output
    assert "ceiling of a day: $7.5000" in text.output
    costs = json.loads(printed.output)
    assert (costs["usd_per_day"], costs["arms"][0]["is_simulated"]) == (7.5, True)
