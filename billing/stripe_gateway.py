"""Stripe over HTTP: the only module that imports `stripe`.

Each call is one request: it is not repeated here, because what may be repeated is for the steps of
`billing.collection` to decide. No transaction may be open, since a call may take CALL_SECONDS.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import stripe
from django.db import connection

from common.json_bodies import JsonObject

# The version that Stripe's OpenAPI document in the tests describes.
API_VERSION: Final = "2026-05-27.dahlia"
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0
# Longer than any call: a request that was given up is over at Stripe by then.
CALL_SECONDS: Final = 60.0
PAGE_LIMIT: Final = 100
# A customer has a few invoices a month: 2,000 are decades.
PAGES_MAX: Final = 20
SIGNATURE_TOLERANCE_SECONDS: Final = 300
LIVE_KEYS: Final = ("sk_live_", "rk_live_")
TEST_KEYS: Final = ("sk_test_", "rk_test_")
# Of the fake Stripe that runs beside the demo. Stripe itself makes no such key.
FAKE_KEYS: Final = "sk_test_fake_"

Found = TypeVar("Found", bound=msgspec.Struct)

stripe.enable_telemetry = False


class StripeFailure(Exception):
    """A call failed; the message is a sentence for people."""


class Unanswered(StripeFailure):
    """No answer came: whether the request was carried out is not known."""


class Failed(StripeFailure):
    """Stripe answered with an error of its own, which it gives again to the same idempotency key;
    whether the request was carried out is not known.
    """


class Busy(StripeFailure):
    """Nothing was done: too many requests."""

    def __init__(self, message: str, *, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Rejected(StripeFailure):
    """Stripe refused the request as it is."""

    def __init__(self, message: str, *, code: str = "", is_missing: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_missing = is_missing


class KeyRejected(StripeFailure):
    """Stripe does not take the API key, or not for this."""


class WrongSignature(StripeFailure):
    """A webhook is not from Stripe, or is too old."""


class WrongKey(ValueError):
    """This is no secret key of Stripe's."""


class Credentials(NamedTuple):
    """With what a tenant's requests are made and its webhooks verified."""

    api_key: str
    webhook_secret: str
    # None: Stripe's own address.
    api_base: str | None = None

    @property
    def is_live(self) -> bool:
        return is_live_key(self.api_key)

    @property
    def is_fake(self) -> bool:
        return self.api_key.startswith(FAKE_KEYS)

    def __repr__(self) -> str:
        return f"Credentials(is_live={self.is_live})"


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of an invoice; amounts are in Stripe's minor units."""

    id: str
    customer: str
    status: str | None
    total: int
    currency: str
    livemode: bool
    created: int
    amount_due: int
    amount_paid: int
    amount_remaining: int
    attempt_count: int
    number: str | None = None
    due_date: int | None = None
    auto_advance: bool = False
    metadata: dict[str, str] | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an invoice."""

    id: str
    amount: int
    metadata: dict[str, str] = {}


class CustomerObject(msgspec.Struct, frozen=True, kw_only=True):
    """A customer."""

    id: str
    livemode: bool
    metadata: dict[str, str] | None = None


class PaymentReference(msgspec.Struct, frozen=True, kw_only=True):
    """By what an invoice was paid, or is to be."""

    payment_intent: str | None = None


class InvoicePayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of an invoice."""

    id: str
    invoice: str
    payment: PaymentReference


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money given back."""

    id: str
    amount: int
    status: str | None = None


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that the customer's bank takes back, or may."""

    id: str
    amount: int
    status: str


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """A meter of usage."""

    id: str
    event_name: str
    livemode: bool
    event_time_window: str | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A price of a product."""

    id: str
    livemode: bool


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to an object; only which one is read of it."""

    id: str
    type: str
    created: int
    livemode: bool
    data: dict[str, JsonObject]

    @property
    def object_of(self) -> JsonObject:
        return self.data.get("object", {})


def is_live_key(api_key: str) -> bool:
    """Return whether a secret key moves real money. Raises WrongKey."""
    if api_key.startswith(LIVE_KEYS):
        return True
    if api_key.startswith(TEST_KEYS):
        return False
    raise WrongKey("it must be a secret or restricted key: sk_live_…, sk_test_…, rk_…")


def verify_webhook(body: bytes, signature: str, *, secret: str) -> Event:
    """Return the event of a webhook's body, which is signed as it came. Raises WrongSignature."""
    try:
        stripe.WebhookSignature.verify_header(
            body.decode(), signature, secret, SIGNATURE_TOLERANCE_SECONDS
        )
        return msgspec.json.decode(body, type=Event)
    except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
        raise WrongSignature("The signature is missing, wrong, or older than 5 minutes.") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise WrongSignature("The body is no event of Stripe's.") from error


class StripeGateway:
    """Requests with one tenant's key."""

    def __init__(self, credentials: Credentials) -> None:
        self.is_live = credentials.is_live
        base = credentials.api_base
        self._client = stripe.StripeClient(
            credentials.api_key,
            stripe_version=API_VERSION,
            base_addresses={} if base is None else {"api": base},
            http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, READ_SECONDS)),
            max_network_retries=0,
        )

    def create_customer(self, given: JsonObject, *, key: str) -> CustomerObject:
        return self._write("/v1/customers", given, CustomerObject, key=key)

    def list_customers(self, *, since: int, email: str) -> Iterator[CustomerObject]:
        """Yield the customers made since a moment, newest first."""
        given: JsonObject = {"created": {"gte": since}}
        if email:
            given["email"] = email
        return self._list("/v1/customers", given, CustomerObject)

    def create_invoice(self, given: JsonObject, *, key: str) -> Invoice:
        return self._write("/v1/invoices", given, Invoice, key=key)

    def read_invoice(self, invoice_id: str) -> Invoice:
        return self._read(f"/v1/invoices/{invoice_id}", {}, Invoice)

    def list_invoices(self, customer: str) -> Iterator[Invoice]:
        """Yield a customer's invoices, newest first: as they are now, other than a search."""
        return self._list("/v1/invoices", {"customer": customer}, Invoice)

    def delete_draft(self, invoice_id: str) -> None:
        self._call("delete", f"/v1/invoices/{invoice_id}", {})

    def list_lines(self, invoice_id: str) -> Iterator[Line]:
        return self._list(f"/v1/invoices/{invoice_id}/lines", {}, Line)

    def add_lines(self, invoice_id: str, lines: list[JsonObject], *, key: str) -> Invoice:
        """Add up to 250 lines to a draft."""
        path = f"/v1/invoices/{invoice_id}/add_lines"
        return self._write(path, {"lines": lines}, Invoice, key=key)

    def remove_lines(self, invoice_id: str, line_ids: list[str], *, key: str) -> Invoice:
        lines = [{"id": line_id, "behavior": "delete"} for line_id in line_ids]
        path = f"/v1/invoices/{invoice_id}/remove_lines"
        return self._write(path, {"lines": lines}, Invoice, key=key)

    def finalize(self, invoice_id: str, *, key: str) -> Invoice:
        path = f"/v1/invoices/{invoice_id}/finalize"
        return self._write(path, {"auto_advance": False}, Invoice, key=key)

    def advance(self, invoice_id: str, *, key: str) -> Invoice:
        """Let Stripe charge an open invoice, with its own retries and reminders."""
        return self._write(f"/v1/invoices/{invoice_id}", {"auto_advance": True}, Invoice, key=key)

    def send(self, invoice_id: str, *, key: str) -> Invoice:
        """Let Stripe mail an open invoice."""
        return self._write(f"/v1/invoices/{invoice_id}/send", {}, Invoice, key=key)

    def void(self, invoice_id: str, *, key: str) -> Invoice:
        return self._write(f"/v1/invoices/{invoice_id}/void", {}, Invoice, key=key)

    def list_payments(
        self, *, invoice_id: str = "", payment_intent: str = ""
    ) -> Iterator[InvoicePayment]:
        given: JsonObject = {"invoice": invoice_id} if invoice_id else {}
        if payment_intent:
            given["payment"] = {"type": "payment_intent", "payment_intent": payment_intent}
        return self._list("/v1/invoice_payments", given, InvoicePayment)

    def list_refunds(self, payment_intent: str) -> Iterator[Refund]:
        return self._list("/v1/refunds", {"payment_intent": payment_intent}, Refund)

    def list_disputes(self, payment_intent: str) -> Iterator[Dispute]:
        return self._list("/v1/disputes", {"payment_intent": payment_intent}, Dispute)

    def list_events(self, *, since: int, types: list[str]) -> Iterator[Event]:
        """Yield what happened since a moment of Stripe's clock, newest first."""
        return self._list("/v1/events", {"created": {"gte": since}, "types": types}, Event)

    def list_meters(self) -> Iterator[Meter]:
        return self._list("/v1/billing/meters", {}, Meter)

    def create_meter(self, given: JsonObject, *, key: str) -> Meter:
        return self._write("/v1/billing/meters", given, Meter, key=key)

    def list_prices(self, lookup_key: str) -> Iterator[Price]:
        return self._list("/v1/prices", {"lookup_keys": [lookup_key]}, Price)

    def create_price(self, given: JsonObject, *, key: str) -> Price:
        return self._write("/v1/prices", given, Price, key=key)

    def send_meter_event(self, given: JsonObject, *, key: str) -> None:
        self._call("post", "/v1/billing/meter_events", given, idempotency_key=key)

    def _write(self, path: str, given: JsonObject, of: type[Found], *, key: str) -> Found:
        return self._checked(self._call("post", path, given, idempotency_key=key), of)

    def _read(self, path: str, given: JsonObject, of: type[Found]) -> Found:
        return self._checked(self._call("get", path, given), of)

    def _list(self, path: str, given: JsonObject, of: type[Found]) -> Iterator[Found]:
        asked = {**given, "limit": PAGE_LIMIT}
        for _ in range(PAGES_MAX):
            page = self._call("get", path, asked)
            rows = [self._checked(each, of) for each in page["data"]]
            yield from rows
            if not page["has_more"]:
                return
            asked["starting_after"] = page["data"][-1]["id"]
        raise Rejected(f"Stripe has more than {PAGES_MAX * PAGE_LIMIT} objects in this list.")

    def _checked(self, answer: JsonObject, of: type[Found]) -> Found:
        """Return an answer's members that are read, which must be of the key's mode."""
        if answer.get("livemode", self.is_live) != self.is_live:
            raise KeyRejected("Stripe answered in another mode than that of the key.")
        try:
            return msgspec.convert(answer, of)
        except msgspec.ValidationError as error:
            raise Failed(f"Stripe's answer was not understood: {error}.") from error

    def _call(self, method: Any, path: str, given: Mapping[str, Any], **options: str) -> JsonObject:
        assert not connection.in_atomic_block, "no transaction is open during a call"
        with _translated():
            answer: JsonObject = self._client.raw_request(method, path, **given, **options).data
            return answer


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the errors of the package into those of this module."""
    try:
        yield
    except stripe.APIConnectionError as error:
        raise Unanswered("Stripe did not answer.") from error
    except stripe.RateLimitError as error:
        headers = error.headers or {}
        asked = headers.get("Retry-After") or headers.get("retry-after")
        seconds = int(asked) if asked and asked.isdecimal() else None
        raise Busy("Stripe takes no more requests for now.", retry_after_seconds=seconds) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise KeyRejected(f"Stripe refused the API key: {_sentence(error)}") from error
    except (stripe.InvalidRequestError, stripe.CardError) as error:
        raise Rejected(
            f"Stripe refused: {_sentence(error)}",
            code=error.code or "",
            is_missing=error.http_status == 404,
        ) from error
    except stripe.StripeError as error:
        if error.http_status == 409:
            # Of the same idempotency key: its outcome is still to come, so the key stays.
            raise Unanswered("Stripe is still working on the same request.") from error
        raise Failed(f"Stripe failed: {_sentence(error)}") from error


def _sentence(error: stripe.StripeError) -> str:
    return (error.user_message or str(error))[:500]
