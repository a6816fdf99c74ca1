"""`manage.py simulate_budget --tenant NAME (--budget-id N [--limit-usd X] | --json FILE)`."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from django.core.management.base import BaseCommand, CommandError
from rest_framework.exceptions import ValidationError

from common.errors import MeteringError
from common.json_bodies import JsonObject
from metering.api.simulations import SimulationBody, proposal_of
from metering.management.arguments import find_tenant, read_time
from metering.simulation import Replayed, simulate
from metering.simulation.outcome import SimulationOutcome
from tenants.models import Tenant
from tenants.scope import tenant_scope

# Options that change a part of a budget's limit, and the part.
LIMIT_OPTIONS: Final = {
    "limit_usd": "cost_usd",
    "limit_tokens": "tokens",
    "limit_requests": "requests",
    "limit_tool_calls": "tool_calls",
    "limit_seconds": "seconds",
}


class Command(BaseCommand):
    """Replay a past period against a proposed budget or breaker; nothing is changed by it."""

    help = "Print, as JSON, what a proposed budget or breaker would have refused and saved."

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

    def handle(self, *args: object, **options: Any) -> None:
        tenant = find_tenant(options["tenant"])
        try:
            outcome = _simulate(tenant, _body(options))
        except MeteringError as error:
            raise CommandError(error.detail) from error
        except ValidationError as error:
            raise CommandError("; ".join(_sentences(error.detail))) from error
        self.stdout.write(json.dumps(msgspec.to_builtins(outcome), indent=2))


def _simulate(tenant: Tenant, body: Mapping[str, object]) -> SimulationOutcome:
    with tenant_scope(tenant.id):
        checked = SimulationBody(data=body)
        checked.is_valid(raise_exception=True)
        fields = checked.validated_data
        proposal = proposal_of(fields, tenant=tenant)
    period = Replayed(fields["from"], fields["to"])
    return simulate(tenant_id=tenant.id, proposal=proposal, period=period)


def _body(options: JsonObject) -> JsonObject:
    """Return the options as a body of `POST /v1/simulations`."""
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
            body[member] = read_time(options[option], f"--{member}").isoformat()
    return body


def _read(path: Path) -> JsonObject:
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise CommandError(f"The file {str(path)!r} cannot be read: {error}.") from error
    except ValueError as error:
        raise CommandError(f"The file {str(path)!r} is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise CommandError(f"The file {str(path)!r} holds no object.")
    return body


def _sentences(detail: object, where: str = "") -> Iterator[str]:
    """Yield what is wrong with a body, each with the member that it is about."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _sentences(inner, where if name == "non_field_errors" else f"{where}/{name}")
    elif isinstance(detail, list):
        for inner in detail:
            yield from _sentences(inner, where)
    else:
        yield f"{where or 'body'}: {detail}"
