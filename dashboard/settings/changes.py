"""Changes of configuration in words: which field, from what, to what. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from common.money import exact_money
from metering.fields.rates import format_rates

# What says nothing to people: numbers of rows, and what follows from the rest.
UNSAID: Final = frozenset(
    {
        "id",
        "tenant_id",
        "user_id",
        "created_by_id",
        "created_at",
        "counts_from",
        "is_counting",
        "is_demo_complete",
        "has_rollover",
        "revision",
        "configuration_version",
        "prefix",
        "token_hash",
    }
)
LABELS: Final = {
    "limit_cost_nanos": "Cost limit",
    "call_nanos": "Price of a call",
    "email": "Email",
    "unpriced_policy": "Models without a price",
    "trusts_given_costs": "Trusts given costs",
    "assumed_input_nanos_per_mtok": "Assumed input rate per million tokens",
    "assumed_output_nanos_per_mtok": "Assumed output rate per million tokens",
    "timezone": "Time zone",
    "replaced_secrets": "Replaced secrets",
}
ACTIONS: Final = {
    "create": "created",
    "update": "changed",
    "delete": "removed",
    "archive": "archived",
    "approve": "approved",
    "refuse": "refused",
    "close": "closed",
    "end": "ended",
    "import": "imported",
    "judge": "judged",
    "set_key": "set the key of",
    "resend": "resent",
    "rotate_secret": "gave a new secret to",
    "void": "voided",
    "replace": "replaced",
}
NOUNS: Final = {
    "alertsettings": "alert settings",
    "apikey": "API key",
    "attributemappings": "attribute mappings",
    "backgroundjob": "job",
    "billingsettings": "billing settings",
    "creditgrant": "credit",
    "creditnote": "credit note",
    "delivery": "message",
    "limitincrease": "limit increase",
    "maintenancewindow": "maintenance window",
    "membership": "member",
    "modelroute": "route",
    "planversion": "plan version",
    "providerbillline": "provider's bill",
    "ratelimit": "rate limit",
    "reconciliationsettings": "threshold of reconciliation",
    "stripeaccount": "payments of a customer",
    "stripesettings": "Stripe settings",
    "tenant": "workspace settings",
    "tenantprice": "model price",
    "toolprice": "tool price",
    "usageevent": "event",
}
NONE: Final = "none"
VALUE_CHARACTERS_MAX: Final = 300


class Value(NamedTuple):
    """A value before or after a change: a moment, or words."""

    words: str
    at: datetime | None = None


class Change(NamedTuple):
    """One field of a change; `before` is None where the row is new."""

    label: str
    before: Value | None
    after: Value | None


def noun_of(object_type: str) -> str:
    """What kind of thing was changed."""
    return NOUNS.get(object_type, object_type)


def verb_of(action: str) -> str:
    """What was done to it."""
    return ACTIONS.get(action, action.replace("_", " "))


def changes_of(action: str, changes: Mapping[str, Any]) -> list[Change]:
    """The fields that were changed; of a row that is new or gone those that say something."""
    is_new, is_gone = action == "create", action == "delete"
    said = []
    for name, (before, after) in sorted(changes.items()):
        is_empty = _is_empty(before) and _is_empty(after)
        is_off = (is_new and after is False) or (is_gone and before is False)
        if name in UNSAID or is_empty or is_off:
            continue
        said.append(
            Change(
                label_of(name),
                None if is_new else value_of(name, before),
                None if is_gone else value_of(name, after),
            )
        )
    return said


def label_of(name: str) -> str:
    """A column's name for people."""
    if name in LABELS:
        return LABELS[name]
    plain = name.removeprefix("is_").removeprefix("has_")
    for unit in ("_nanos", "_percent", "_seconds", "_id"):
        plain = plain.removesuffix(unit)
    words = plain.replace("_nanos_", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def value_of(name: str, value: Any) -> Value:
    """A value with its unit."""
    if _is_empty(value):
        return Value(NONE)
    if isinstance(value, str) and (at := _moment(value)) is not None:
        return Value(value, at)
    if name == "rates":
        return Value(format_rates(value))
    words = "; ".join(map(_level, value)) if name == "levels" else _words(name, value)
    if len(words) > VALUE_CHARACTERS_MAX:
        words = words[: VALUE_CHARACTERS_MAX - 1] + "…"
    return Value(words)


def _words(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number_words(name, value)
    if isinstance(value, Mapping):
        return ", ".join(_pairs(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        mark = "; " if any(isinstance(member, Mapping) for member in value) else ", "
        return mark.join(NONE if _is_empty(member) else _words(name, member) for member in value)
    return str(value)


def _number_words(name: str, value: int | float) -> str:
    if isinstance(value, int) and "nanos" in name:
        return exact_money(value)
    if name.endswith("percent"):
        return f"{value:,}%"
    if name.endswith("_seconds"):
        return f"{value:,} s"
    return str(value) if name.endswith("_id") else f"{value:,}"


def _level(level: Mapping[str, Any]) -> str:
    """A budget's level: "70%: notify finance", "100%: block, notify finance, engineering"."""
    does = [] if level.get("action") in {None, "none"} else [str(level["action"])]
    if level.get("notify"):
        does.append(f"notify {', '.join(level['notify'])}")
    further = {
        name: value for name, value in level.items() if name not in {"percent", "action", "notify"}
    }
    return f"{level.get('percent')}%: {', '.join([*does, *_pairs(further)]) or 'record only'}"


def _pairs(value: Mapping[str, object]) -> list[str]:
    return [
        f"{label_of(name).lower()} {_words(name, member)}"
        for name, member in value.items()
        if not _is_empty(member)
    ]


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})


def _moment(text: str) -> datetime | None:
    if len(text) < 19 or text[4:5] != "-" or text[10:11] not in {"T", " "}:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
