"""What a tenant's books say after reports came in: calls, cost, and who is charged for it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from django.db import connection

from metering.api import fast_path
from metering.api.fast_reservations import find_endpoint
from metering.audit.ledger import audit_tenant
from metering.models import Budget, Operation, Status, UsageEvent
from tests.factories import Account, make_account, make_budget, windows_of
from tests.metering.emitters.pieces import Body
from tests.metering.requests import request_of

# Ids that are given in the order of arrival.
OWN_COLUMNS: Final = frozenset({"id", "tenant_id", "price_id"})
DIMENSIONS: Final = ("agent", "session", "user", "team", "model")


class Call(NamedTuple):
    """One stored call: what it was, whose, and its tokens by class. Input and output include the
    rest.
    """

    operation: str
    status: str
    response_id: str | None
    request_id: str | None
    provider: str
    model: str
    tool: str
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    web_searches: int
    cost_nanos: int | None
    whose: Mapping[str, str]


class Outcome(NamedTuple):
    """All of a tenant's calls, and its cost by each dimension as its budgets hold it."""

    calls: tuple[Call, ...]
    cost_nanos: int
    cost_by: Mapping[str, Mapping[str, int]]
    # Everything that is stored of each call but our own ids, as text.
    rows: tuple[str, ...]

    @property
    def answered(self) -> list[Call]:
        """The model calls that did not fail."""
        return [call for call in self.calls if not call.tool and call.status != "error"]

    @property
    def failed(self) -> int:
        return sum(not call.tool and call.status == "error" for call in self.calls)

    @property
    def tools(self) -> int:
        return sum(call.operation == "tool" for call in self.calls)


class Books(NamedTuple):
    """A tenant with a budget for all of it, for each call, and for each value of a dimension."""

    account: Account
    whole: Budget
    by: Mapping[str, Budget]


def open_books() -> Books:
    account = make_account()
    # Only calls that reach a level are counted singly: every call of more than a cent.
    make_budget(
        account,
        cost_usd=None,
        limit_cost_nanos=10_000_000,
        levels=[(100, "none")],
        period="lifetime",
        per=["request"],
    )
    by = {name: _far_budget(account, name) for name in DIMENSIONS}
    return Books(account, _far_budget(account), by)


def _far_budget(account: Account, *per: str) -> Budget:
    return make_budget(account, cost_usd=1_000_000, period="lifetime", per=list(per))


def post(account: Account, body: Body) -> None:
    """Send a body as its client would."""
    endpoint = find_endpoint("POST", body.path)
    assert endpoint is not None
    headers = {**account.headers, "Content-Type": body.content_type}
    answer = fast_path.run(endpoint.begin(request_of(headers, body.content)))
    assert answer.status == 200, (body.path, answer.status, answer.body[:1000])


def outcome_of(bodies: Iterable[Body]) -> Outcome:
    """The books of a new tenant to whom these bodies were sent; proved before they are read."""
    books = open_books()
    for body in bodies:
        post(books.account, body)
    assert audit_tenant(books.account.tenant.id) == []
    return read_outcome(books)


def outcome_at_once(bodies: Sequence[Body], threads: int) -> Outcome:
    """The same, of bodies that several exporters send at once."""
    books = open_books()

    def send(body: Body) -> None:
        try:
            post(books.account, body)
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, bodies))
    assert audit_tenant(books.account.tenant.id) == []
    return read_outcome(books)


def read_outcome(books: Books) -> Outcome:
    """What is stored. Every budget must say what the events say."""
    rows = stored_rows(books.account)
    cost_nanos = sum(row.cost_nanos or 0 for row in rows)
    assert (
        sum(window.spent_nanos for window in windows_of(books.account, books.whole)) == cost_nanos
    )
    cost_by = {}
    for name, budget in books.by.items():
        spent: Counter[str] = Counter()
        for row in rows:
            spent[getattr(row, name)] += row.cost_nanos or 0
        cost_by[name] = {value: nanos for value, nanos in spent.items() if nanos}
        held = {
            json.loads(window.group_key)[0]: window.spent_nanos
            for window in windows_of(books.account, budget)
            if window.spent_nanos
        }
        assert held == cost_by[name], name
    calls = tuple(sorted((_call(row) for row in rows), key=repr))
    return Outcome(calls, cost_nanos, cost_by, tuple(sorted(_columns(books.account))))


def _columns(account: Account) -> list[str]:
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM usage_event WHERE NOT is_void")
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [repr({name: row[name] for name in names if name not in OWN_COLUMNS}) for row in rows]


def stored_rows(account: Account) -> Sequence[UsageEvent]:
    with account.scope():
        return list(UsageEvent.objects.filter(tenant=account.tenant, is_void=False))


def _call(row: UsageEvent) -> Call:
    return Call(
        operation=Operation(row.operation).label,
        status=Status(row.status).label,
        response_id=row.response_id,
        request_id=getattr(row, "request_id", None),
        provider=row.provider,
        model=row.model,
        tool=row.tool,
        input=row.input_tokens,
        output=row.output_tokens,
        cache_read=row.cache_read_tokens,
        cache_write=row.cache_write_tokens,
        reasoning=row.reasoning_tokens,
        web_searches=row.web_searches or 0,
        cost_nanos=row.cost_nanos,
        whose={name: getattr(row, name) for name in DIMENSIONS},
    )
