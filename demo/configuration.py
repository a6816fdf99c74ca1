"""Teams, tool prices, budgets and annotations of the demo, made through the public API.

Limits follow from what the demo's calls will spend, so that on any day some windows are nearly full
and one is over.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from demo.calls import Call, epoch_ms
from demo.client import Answer, Client, JsonObject
from demo.spend import NANOS, TOOL_PRICES, spend_by
from demo.work import deploys, unit_counts

TEAMS = (
    "analysis",
    "assistant",
    "catalogue",
    "developer-tools",
    "engineering",
    "research",
    "search",
    "support",
)
PRICES_FROM = timedelta(days=35)


def configure(client: Client, *, calls: Sequence[Call], seed: int, end: datetime) -> list[str]:
    """Make what is not there yet; return a sentence for everything that could not be made."""
    remarks: list[str] = []
    for path, key, bodies in (
        ("/v1/teams", "name", [{"name": team} for team in TEAMS]),
        ("/v1/prices", "tool", tool_prices(end)),
        ("/v1/budgets", "name", budgets(calls, end=end)),
        ("/v1/unit-counts", "day", unit_counts(calls)),
        ("/v1/annotations", "text", deploys(end)),
    ):
        remarks += make_missing(
            client, path=path, key=key, bodies=bodies, load=f"{seed}-{end:%Y%m%dT%H%M}"
        )
    return remarks


def make_missing(
    client: Client, *, path: str, key: str, bodies: Sequence[JsonObject], load: str
) -> list[str]:
    """Post each body whose key the list at `path` does not show; stop at a refusal."""
    present = {item.get(key) for item in items(client.get(f"{path}?limit=500"))}
    for body in bodies:
        if body[key] in present:
            continue
        answer = client.post(path, body, idempotency_key=f"demo-{load}-{path}-{body[key]}")
        if not answer.is_success:
            return [remark(path, body[key], answer)]
    return []


def items(answer: Answer) -> list[JsonObject]:
    listed = answer.body.get("data") if isinstance(answer.body, dict) else None
    return [item for item in listed or [] if isinstance(item, dict)]


def remark(path: str, name: str, answer: Answer) -> str:
    if answer.status == 404:
        return f"{path} is not offered by this service, so the demo has none of it."
    return f"{path} did not take {name!r} ({answer.status}): {answer.detail}"


def tool_prices(end: datetime) -> list[JsonObject]:
    return [
        {"tool": tool, "call_usd": usd, "effective_from": (end - PRICES_FROM).isoformat()}
        for tool, usd in TOOL_PRICES.items()
    ]


def budgets(calls: Sequence[Call], *, end: datetime) -> list[JsonObject]:
    """Return six budgets, each of another kind."""
    day = end.replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    research = [call for call in calls if call.team == "research"]
    everything = expected_spend(calls, start=month, group=lambda call: "all")
    customer = expected_spend(calls, start=month, group=lambda call: call.customer)
    researcher = expected_spend(research, start=day, group=lambda call: call.agent, share=0.04)
    session = top_spend(calls, lambda call: call.session, share=0.03)
    contracts = top_spend(
        [call for call in calls if call.feature == "contract_review"], lambda call: call.feature
    )
    completion_tokens = sum(
        (call.input_tokens or 0) + call.output_tokens
        for call in calls
        if call.team == "developer-tools"
    )
    return [
        {
            "name": "All spend, monthly",
            "period": "month",
            "limit": {"cost_usd": limit_usd(everything, used_percent=78)},
            "mode": "enforce",
            "levels": [
                level(70, "none", "finance"),
                level(90, "none", "finance", "engineering"),
                level(100, "block", "finance", "engineering"),
            ],
        },
        {
            "name": "Research agents, daily",
            "match": {"team": "research"},
            "per": ["agent"],
            "period": "day",
            "limit": {"cost_usd": limit_usd(researcher, used_percent=95), "tool_calls": 500},
            "mode": "enforce",
            "levels": [
                level(70, "none", "team_lead"),
                level(100, "block", "finance", "engineering"),
                level(120, "lockout", "engineering"),
            ],
        },
        {
            "name": "Customers, monthly",
            "per": ["customer"],
            "period": "month",
            "limit": {"cost_usd": limit_usd(customer, used_percent=106)},
            "mode": "warn",
            "levels": [level(80, "none", "finance"), level(100, "block", "finance")],
        },
        {
            "name": "One agent session",
            "match": {"team": ["research", "engineering"]},
            "per": ["session"],
            "period": "lifetime",
            "limit": {"cost_usd": limit_usd(session, used_percent=100)},
            "mode": "shadow",
            "levels": [level(80, "none"), level(100, "block", "engineering")],
        },
        {
            "name": "Contract review, whole project",
            "match": {"feature": "contract_review"},
            "period": "lifetime",
            "limit": {"cost_usd": limit_usd(contracts, used_percent=92)},
            "mode": "enforce",
            "levels": [
                level(50, "none", "team_lead"),
                level(90, "downgrade", "team_lead", "finance"),
                level(100, "block", "team_lead", "finance"),
            ],
        },
        {
            "name": "Code completion, monthly tokens",
            "match": {"team": "developer-tools"},
            "period": "month",
            "limit": {"tokens": max(1, round(completion_tokens / 0.62))},
            "mode": "warn",
            "levels": [level(75, "none", "team_lead"), level(100, "throttle", "engineering")],
        },
    ]


def level(percent: int, action: str, *notify: str) -> JsonObject:
    return {"percent": percent, "notify": list(notify), "action": action}


def expected_spend(
    calls: Sequence[Call],
    *,
    start: datetime,
    group: Callable[[Call], str | None],
    share: float = 0.25,
) -> int:
    """Return what the top group spends since a start, or a share of the fortnight if that is more.

    A period that has just begun says little, and a limit after it would stop everything soon.
    """
    start_ms = epoch_ms(start)
    current = top_spend([call for call in calls if call.time_ms >= start_ms], group)
    return max(current, int(top_spend(calls, group) * Decimal(str(share))))


def top_spend(
    calls: Sequence[Call], group: Callable[[Call], str | None], *, share: float = 0.0
) -> int:
    """Return what the top group spends, or the one below a `share` of all; unnamed groups aside."""
    spent = spend_by([call for call in calls if group(call)], group)
    ordered = sorted(spent.values(), reverse=True)
    return ordered[int(len(ordered) * share)] if ordered else 0


def limit_usd(spent_nanos: int, *, used_percent: int) -> str:
    """Return a limit of two figures, at least a dime, of which the spending is about a percentage.

    It is rounded down if the spending is to be over it, and up otherwise.
    """
    wanted = Decimal(spent_nanos) * 100 / used_percent / NANOS
    step = Decimal(1).scaleb(wanted.adjusted() - 1) if wanted else Decimal("0.01")
    rounding = ROUND_FLOOR if used_percent >= 100 else ROUND_CEILING
    rounded = (wanted / step).to_integral_value(rounding) * step
    return f"{max(rounded, Decimal('0.10')):f}"
