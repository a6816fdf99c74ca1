"""`/customers/credits`: what have customers paid ahead, and what does it still cover?"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from django.db.models import Count, Model, Q, QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from billing.coupons import end_coupon
from billing.credits import held_of
from billing.currencies import money_of
from billing.models import (
    Coupon,
    CreditGrant,
    CreditNote,
    CreditState,
    Customer,
    StatementState,
    Wallet,
)
from billing.wallet_opening import end_wallet
from billing.wallets import uses_of
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.buttons import button_of
from dashboard.filter_bar import Choice
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of, numbered_page
from tenants.admin_site import actor_of

PER_PAGE: Final = 25
PAGE_MAX: Final = 1_000
NEEDLE_CHARACTERS_MAX: Final = 100
EXPIRES_SOON: Final = timedelta(days=30)
GRANTS_SHOWN: Final = 20
# Uses of a coupon that count no more.
_VOID_USE: Final = Q(uses__statement__state=StatementState.VOID)

# Each list by its name in the address: its title, and the path from a row to its customer.
LISTS: Final[dict[str, tuple[str, type[Model], str]]] = {
    "grants": ("Grants", CreditGrant, "customer"),
    "wallets": ("Wallets", Wallet, "customer"),
    "notes": ("Credit notes", CreditNote, "statement__customer"),
    "coupons": ("Coupons", Coupon, "customer"),
}


class GrantLine(NamedTuple):
    """A grant, and what it keeps for calls in flight though it has expired."""

    row: CreditGrant
    held: int


class WalletLine(NamedTuple):
    """A wallet, and how full it is, in the provider's cost."""

    row: Wallet
    limit_nanos: int
    used_nanos: int


class CouponLine(NamedTuple):
    """A coupon, and whether it can be ended."""

    row: Coupon
    is_lasting: bool


class Asked(NamedTuple):
    """Which list is asked for, whose rows, and which page of it."""

    show: str
    needle: str
    page: int

    def query(self, **changes: str | int) -> str:
        """Return the address of the page with changes."""
        chosen = self._replace(**{"page": 1, **changes})  # type: ignore[arg-type]
        shown = {"show": chosen.show, "q": chosen.needle, "page": str(chosen.page)}
        kept = {name: value for name, value in shown.items() if value not in {"", "1", "grants"}}
        address = reverse("dashboard:credits")
        return f"{address}?{urlencode(kept)}" if kept else address


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """Grants, wallets, credit notes and coupons of all customers, the newest first."""
    show = request.GET.get("show", "")
    asked = Asked(
        show=show if show in LISTS else "grants",
        needle=request.GET.get("q", "").replace("\0", "")[:NEEDLE_CHARACTERS_MAX].strip(),
        page=max(1, min(number_of(request.GET.get("page", "")) or 1, PAGE_MAX)),
    )
    rows = _rows(request, asked)
    pages = numbered_page(
        asked.page, rows.count(), per_page=PER_PAGE, address=lambda number: asked.query(page=number)
    )
    wallets = Wallet.objects.filter(tenant=request.tenant, ended_at=None).count()
    balances = _balances(request)
    context = frame(request, filter_bar_of(request), page="credits") | {
        "headline": headline_of(balances, wallets),
        "balances": balances,
        "expiring": _expiring(request),
        "unused": _unused(request),
        "wallets": wallets,
        "lists": [
            Choice(asked.query(show=name), title, 0, name == asked.show)
            for name, (title, *_) in LISTS.items()
        ],
        "title": LISTS[asked.show][0],
        "asked": asked,
        "needle_characters_max": NEEDLE_CHARACTERS_MAX,
        "lines": _lines(asked.show, list(rows[pages.rows])),
        "first": pages.first,
        "last": pages.last,
        "found": pages.total,
        "previous": pages.previous,
        "next": pages.next,
        "may_bill": may_bill(request),
    }
    return render(request, "dashboard/billing/credits.html", context)


def _rows(request: PageRequest, asked: Asked) -> QuerySet[Any]:
    _, model, path = LISTS[asked.show]
    rows: QuerySet[Any] = model._default_manager.filter(tenant=request.tenant).order_by("-id")
    if asked.show == "wallets":
        rows = rows.select_related("budget")
    if asked.show == "coupons":
        rows = rows.annotate(used=Count("uses", filter=~_VOID_USE))
    if asked.needle:
        rows = rows.filter(
            Q(**{f"{path}__name__icontains": asked.needle})
            | Q(**{f"{path}__key__icontains": asked.needle})
        )
    return rows.select_related(path)


def _lines(show: str, rows: Sequence[Any]) -> Sequence[object]:
    if show == "grants":
        return grant_lines(rows)
    if show == "wallets":
        return wallet_lines(rows)
    if show == "coupons":
        return coupon_lines(rows)
    return rows


def grant_lines(grants: Sequence[CreditGrant]) -> list[GrantLine]:
    """Return grants with what they keep for calls."""
    held = held_of(grants)
    return [GrantLine(grant, held.get(grant.id, 0)) for grant in grants]


def wallet_lines(wallets: Sequence[Wallet]) -> list[WalletLine]:
    """Return wallets of one tenant with how full they are."""
    uses = uses_of(wallets)
    return [
        WalletLine(
            wallet,
            wallet.budget.limit_cost_nanos or 0,
            uses[wallet.id].spent_nanos + uses[wallet.id].reserved_nanos,
        )
        for wallet in wallets
    ]


def coupon_lines(coupons: Iterable[Coupon]) -> list[CouponLine]:
    """Return coupons, each with whether it can still be ended."""
    now = timezone.now()
    return [CouponLine(row, row.ends_at is None or row.ends_at > now) for row in coupons]


def _balances(request: PageRequest) -> list[tuple[str, int]]:
    """Return what grants hold, by currency."""
    held = CreditGrant.objects.filter(tenant=request.tenant, balance__gt=0)
    return _by_currency(held, "customer__currency", "balance")


def _expiring(request: PageRequest) -> list[tuple[str, int]]:
    """Return what expires soon unless it is used, by currency."""
    soon = timezone.now() + EXPIRES_SOON
    expiring = CreditGrant.objects.filter(
        tenant=request.tenant, balance__gt=0, expires_at__lte=soon
    ).exclude(state=CreditState.EXPIRED)
    return _by_currency(expiring, "customer__currency", "balance")


def _unused(request: PageRequest) -> list[tuple[str, int]]:
    """Return what the next statements may use of credit notes, by currency."""
    notes = CreditNote.objects.filter(tenant=request.tenant, unused__gt=0)
    return _by_currency(
        notes.exclude(statement__state=StatementState.VOID), "statement__currency", "unused"
    )


def _by_currency(rows: QuerySet[Any], currency: str, amount: str) -> list[tuple[str, int]]:
    sums = rows.values_list(currency).annotate(sum=Sum(amount)).order_by(currency)
    return [(code, int(minor)) for code, minor in sums]


def headline_of(balances: Sequence[tuple[str, int]], wallets: int) -> str:
    """The finding: what is paid ahead, and whether calls are held to it. Pure."""
    if not balances:
        return "No customer has prepaid credit"
    left = " and ".join(money_of(amount, currency) for currency, amount in balances)
    if not wallets:
        return f"Customers have {left} of prepaid credit"
    held = f"{wallets:,} wallet{'s' * (wallets != 1)} hold{'s' * (wallets == 1)} calls to it"
    return f"Customers have {left} of prepaid credit; {held}"


def credit_of(customer: Customer) -> dict[str, object]:
    """Return what a customer's page shows of its credit."""
    wallets = customer.wallets.filter(ended_at=None).select_related("budget")
    used = Count("uses", filter=~_VOID_USE)
    return {
        "grants": grant_lines(list(customer.credit_grants.order_by("-id")[:GRANTS_SHOWN])),
        "grant_count": customer.credit_grants.filter(balance__gt=0).count(),
        "credit": customer.credit_grants.aggregate(sum=Sum("balance"))["sum"] or 0,
        "wallet": next(iter(wallet_lines(list(wallets[:1]))), None),
        "coupons": coupon_lines(
            customer.coupons.annotate(used=used).order_by("-id")[:GRANTS_SHOWN]
        ),
        "notes": list(
            CreditNote.objects.filter(statement__customer=customer)
            .select_related("statement")
            .order_by("-id")[:GRANTS_SHOWN]
        ),
    }


@button_of("credits", may=may_bill)
def end_a_wallet(request: PageRequest, wallet_id: int) -> str:
    """End a wallet: calls are no longer held to the customer's credit."""
    wallet = Wallet.objects.select_related("customer").filter(tenant=request.tenant, id=wallet_id)
    row = get_object_or_404(wallet)
    end_wallet(row, actor=actor_of(request))
    return f"{row.customer.name}'s wallet has ended. Its credit stays for statements."


@button_of("credits", may=may_bill)
def end_a_coupon(request: PageRequest, coupon_id: int) -> str:
    """End a coupon: statements of later periods do not get it."""
    coupon = get_object_or_404(Coupon, tenant=request.tenant, id=coupon_id)
    end_coupon(coupon, actor=actor_of(request))
    return f"Coupon “{coupon.name}” has ended. Statements that have it keep it."
