"""`manage.py simulate_budget --tenant NAME (--budget-id N [--limit-usd X] | --json FILE)`."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from rest_framework.exceptions import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.errors import MeteringError
from common.times import parse_moment_or_date
from metering.api.simulations import SimulationBody, proposal_of
from metering.models import Budget
from metering.simulation import Replayed, simulate
from tenants.models import Tenant
from tenants.scope import platform_scope, tenant_scope

# Options that change a part of a budget's limit, and the part.
LIMIT_OPTIONS: Final = {
    "limit_usd": "cost_usd",
    "limit_tokens": "tokens",
    "limit_requests": "requests",
    "limit_tool_calls": "tool_calls",
    "limit_seconds": "seconds",
}


GROUPS_SHOWN: Final = 10
FIGURES: Final = (
    "Calls",
    "Cost",
    "Would have cost",
    "Saved",
    "Refused calls",
    "of them throttled",
    "Downgraded",
    "First refusal",
)


class Command(BaseCommand):
    """Replay a past period against a proposed budget or breaker; nothing is changed by it."""

    help = "Say what a proposed budget or breaker would have refused in a past period, and saved."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True, metavar="NAME")
        proposal = parser.add_mutually_exclusive_group(required=True)
        proposal.add_argument("--budget-id", type=int, metavar="N", help="A budget in force.")
        proposal.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="A body as for POST /v1/simulations: budget, breaker, or budget_id and changes.",
        )
        parser.add_argument("--limit-usd", metavar="X", help="Instead of the budget's own.")
        for option in list(LIMIT_OPTIONS)[1:]:
            parser.add_argument(f"--{option.replace('_', '-')}", type=int, metavar="N")
        parser.add_argument("--from", dest="from_", metavar="TIME", help="30 days before --to")
        parser.add_argument("--to", metavar="TIME", help="RFC 3339 or a date (UTC); else now")
        parser.add_argument("--json-output", action="store_true", help="Print the result as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        with platform_scope("find the tenant to simulate for"):
            tenant = Tenant.objects.filter(name=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant named {options['tenant']!r}.")
        waiting = Console(stderr=True).status("Replaying ...")
        with waiting:
            try:
                fields, result = _simulate(tenant.id, _body(options))
            except MeteringError as error:
                raise CommandError(error.detail) from error
            except ValidationError as error:
                raise CommandError("; ".join(_sentences(error.detail))) from error
        if options["json_output"]:
            self.stdout.write(json.dumps(result, indent=2))
        else:
            self.stdout.write(_report(result, fields["from"], fields["to"]))


def _simulate(tenant_id: int, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    with tenant_scope(tenant_id):
        checked = SimulationBody(data=body)
        checked.is_valid(raise_exception=True)
        fields = checked.validated_data
        proposal = proposal_of(fields, find=lambda budget_id: _find(tenant_id, budget_id))
    period = Replayed(fields["from"], fields["to"])
    return fields, simulate(tenant_id=tenant_id, proposal=proposal, period=period)


def _find(tenant_id: int, budget_id: int) -> Budget:
    budget = Budget.objects.filter(tenant_id=tenant_id, id=budget_id).first()
    if budget is None:
        raise CommandError(f"The tenant has no budget {budget_id}.")
    return budget


def _body(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as a body of `POST /v1/simulations`."""
    limit = {
        part: options[option]
        for option, part in LIMIT_OPTIONS.items()
        if options[option] is not None
    }
    if options["json"] is not None:
        if limit:
            raise CommandError("Limits are for --budget-id; a file names its own.")
        body = _read(options["json"])
    else:
        body = {"budget_id": options["budget_id"], "changes": {"limit": limit} if limit else {}}
    for member, option in (("from", "from_"), ("to", "to")):
        if options[option] is not None:
            body[member] = _moment(options[option], f"--{member}")
    return body


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise CommandError(f"The file {str(path)!r} cannot be read: {error}.") from error
    except ValueError as error:
        raise CommandError(f"The file {str(path)!r} is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise CommandError(f"The file {str(path)!r} holds no object.")
    return body


def _moment(text: str, option: str) -> str:
    try:
        return parse_moment_or_date(text).isoformat()
    except ValueError as error:
        raise CommandError(f"{option} {text!r} {error}, or a date.") from error


def _sentences(detail: Any, where: str = "") -> Iterator[str]:
    """What is wrong with a body, each with the member that it is about."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _sentences(inner, where if name == "non_field_errors" else f"{where}/{name}")
    elif isinstance(detail, list):
        for inner in detail:
            yield from _sentences(inner, where)
    else:
        yield f"{where or 'body'}: {detail}"


def _report(result: Mapping[str, Any], starts_at: datetime, ends_at: datetime) -> str:
    """The result as text for people."""
    console = Console()
    with console.capture() as captured:
        console.print(
            f"From {starts_at:%Y-%m-%d %H:%M} to {ends_at:%Y-%m-%d %H:%M} UTC", end="\n\n"
        )
        console.print(_figures(result))
        for table in (_levels(result), _groups(result), _openings(result), _days(result)):
            if table.row_count:
                console.print(table)
        for sentence in result["assumptions"]:
            console.print(f"- {escape(sentence)}", highlight=False)
    return captured.get()


def _figures(result: Mapping[str, Any]) -> Table:
    """The figures of the proposal, beside those of the budget in force where there is one."""
    table = Table("", "Proposed", box=None)
    columns = [_figure_column(result)]
    if (present := result.get("compared_with")) is not None:
        table.add_column(f"In force ({present['mode']})")
        columns.append(_figure_column(present))
    for label, *values in zip(FIGURES, *columns, strict=True):
        table.add_row(label, *values)
    return table


def _figure_column(result: Mapping[str, Any]) -> list[str]:
    """The values of FIGURES."""
    refused = result["refused"]
    return [
        f"{result['calls']:,}",
        f"{result['cost_usd']} USD",
        f"{result['would_have_cost_usd']} USD",
        f"{result['saved_usd']} USD",
        f"{refused['calls']:,} ({refused['cost_usd']} USD)",
        f"{result['throttled']:,}",
        f"{result['downgraded']:,}",
        result["first_refusal_at"] or "none",
    ]


def _levels(result: Mapping[str, Any]) -> Table:
    table = Table("Level", "Action", "Crossed by windows", title="Levels", title_justify="left")
    for level in result["levels"]:
        table.add_row(f"{level['percent']} %", level["action"], f"{level['crossed']:,}")
    return table


def _groups(result: Mapping[str, Any]) -> Table:
    table = Table(
        *("Group", "Calls", "Refused", "Saved USD", "First refused", "Locked out"),
        title="Groups that save most",
        title_justify="left",
    )
    for group in result["groups"][:GROUPS_SHOWN]:
        table.add_row(
            _group_words(group["group"]),
            f"{group['calls']:,}",
            f"{group['refused']:,}",
            group["saved_usd"],
            group["first_refused_at"] or "",
            group["lockout_at"] or "",
        )
    return table


def _openings(result: Mapping[str, Any]) -> Table:
    title = f"Opened {result['opened']:,} times"
    table = Table("At", "Group", "Why", title=title, title_justify="left")
    for opening in result["openings"][:GROUPS_SHOWN]:
        table.add_row(opening["at"], _group_words(opening["group"]), escape(opening["why"]))
    return table


def _days(result: Mapping[str, Any]) -> Table:
    table = Table(
        *("Day", "Cost USD", "Would have cost USD", "Refused"), title="Days", title_justify="left"
    )
    for day in result["days"]:
        table.add_row(
            day["date"], day["cost_usd"], day["would_have_cost_usd"], f"{day['refused']:,}"
        )
    return table


def _group_words(group: Mapping[str, str]) -> str:
    words = ", ".join(f"{name} {value!r}" for name, value in group.items())
    return escape(words) or "all together"
