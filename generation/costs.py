"""The costs of a campaign as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from core.command_line import Row, aligned
from db.reports import ArmCosts, Costs, DayCosts


def as_text(costs: Costs) -> Iterator[str]:
    """A table by arm, one by day, then the ceilings and what the calls came to; line by line."""
    yield f"campaign {costs.campaign_id}"
    yield ""
    yield from aligned([ARM_HEADER, *map(_arm_row, costs.arms), _total_row(costs)], words=2)
    yield ""
    yield from aligned([DAY_HEADER, *map(_day_row, costs.days)], words=1)
    yield ""
    yield f"ceiling of the campaign: {_ceiling(costs.ceiling_usd, 'set one with --budget')}"
    yield (
        f"ceiling of a day: {_ceiling(costs.usd_per_day, 'set one in USD_PER_DAY')}; today "
        f"({costs.today} UTC) all campaigns together have committed {usd(costs.today_usd)}"
    )
    outcomes = ", ".join(f"{count:,} {name}" for name, count in costs.by_outcome.items())
    yield f"calls by outcome: {outcomes or 'none'}"
    tokens = costs.spending
    yield (
        f"tokens: {tokens.prompt_tokens:,} in ({tokens.image_tokens:,} of images, "
        f"{tokens.cached_tokens:,} cached), {tokens.completion_tokens:,} out "
        f"({tokens.reasoning_tokens:,} of reasoning)"
    )
    if any(arm.is_simulated for arm in costs.arms):
        yield "simulated: the rehearsal teacher answers, which costs nothing"


def usd(amount: float | None) -> str:
    """US dollars to a hundredth of a cent; `-` for what is not known."""
    return "-" if amount is None else f"${amount:,.4f}"


ARM_HEADER = (
    "arm",
    "model",
    "calls",
    "drafts",
    "due",
    "spent",
    "reserved",
    "per draft",
    "forecast",
)
DAY_HEADER = ("day (UTC)", "calls", "spent", "reserved")


def _arm_row(arm: ArmCosts) -> Row:
    model = f"{arm.model} (simulated)" if arm.is_simulated else arm.model
    money = (arm.spent_usd, arm.reserved_usd, arm.usd_per_draft, arm.forecast_usd)
    return (arm.arm, model, *_numbers(arm.calls, arm.drafts, arm.due), *map(usd, money))


def _total_row(costs: Costs) -> Row:
    total = costs.spending
    drafts, due = sum(arm.drafts for arm in costs.arms), sum(arm.due for arm in costs.arms)
    money = (total.spent_usd, total.reserved_usd, costs.usd_per_draft, costs.forecast_usd)
    return ("all", "", *_numbers(total.attempts, drafts, due), *map(usd, money))


def _day_row(day: DayCosts) -> Row:
    return (day.day, *_numbers(day.calls), usd(day.spent_usd), usd(day.reserved_usd))


def _numbers(*counts: int) -> Iterator[str]:
    return (f"{count:,}" for count in counts)


def _ceiling(amount: float | None, remedy: str) -> str:
    return f"none ({remedy})" if amount is None else usd(amount)
