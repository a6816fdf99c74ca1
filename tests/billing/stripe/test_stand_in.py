"""The stand-in is held to Stripe's own document, and fails as Stripe may."""

import json
import subprocess
import sys
import time
from urllib.parse import urlencode

import pytest
import requests

from billing.stripe_gateway import API_VERSION
from fake_stripe.faults import Fault
from fake_stripe.forms import Mismatch, read_form
from fake_stripe.server import StripeServer
from tests.stripe_server import strict_server
from tests.stripe_server.specification import check, document, version

HEADERS = {"Authorization": "Bearer sk_test_x", "Stripe-Version": API_VERSION}


def post(server: StripeServer, path: str, body: str = "", **headers: str) -> requests.Response:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return requests.post(
        server.url + path, data=body, headers={**HEADERS, **form, **headers}, timeout=10
    )


@pytest.fixture
def lenient() -> object:
    """A stand-in whose complaints a test looks at itself."""
    server = strict_server()
    yield server
    server.stop()


def test_our_version_is_the_one_that_the_document_describes() -> None:
    assert version() == API_VERSION
    assert set(document()["paths"]) > {"/v1/invoices", "/v1/billing/meter_events"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("nonsense=1", "has nonsense, which is unknown"),
        ("auto_advance=perhaps", "'perhaps', which is no boolean"),
        ("days_until_due=1.5", "'1.5', which is no whole number"),
        ("collection_method=barter", "is none of"),
        (urlencode({"number": "N" * 27}), "longer than 26 characters"),
        ("automatic_tax[liability][type]=self", "lacks enabled"),
    ],
)
def test_a_request_that_stripe_would_not_know_is_refused(
    lenient: StripeServer, body: str, reason: str
) -> None:
    answer = post(lenient, "/v1/invoices", body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]
    assert len(lenient.complaints) == 1


def test_an_answer_that_is_not_as_described_is_a_complaint(lenient: StripeServer) -> None:
    lenient.world.customers["cus_1"] = {"id": "cus_1", "object": "customer"}
    requests.get(lenient.url + "/v1/customers/cus_1", headers=HEADERS, timeout=10)
    (complaint,) = lenient.complaints
    assert "lacks created, livemode" in complaint


def test_values_are_checked_by_type() -> None:
    with pytest.raises(Mismatch, match="no integer"):
        check(
            {"amount": "1"},
            {"type": "object", "properties": {"amount": {"type": "integer"}}},
            is_form=False,
        )
    assert read_form("a[b][0]=c&a[b][1]=d&e=") == {"a": {"b": ["c", "d"]}, "e": ""}


def test_a_key_gets_its_stored_answer_for_a_day_also_an_error(server: StripeServer) -> None:
    server.faults.coming.append(Fault.ERROR)
    key = {"Idempotency-Key": "one"}
    first, second = (post(server, "/v1/customers", "name=A", **key) for _ in range(2))
    assert (first.status_code, second.status_code) == (500, 500)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert post(server, "/v1/customers", "name=B", **key).status_code == 400
    server.world.clock_offset_seconds = 25 * 3600
    assert post(server, "/v1/customers", "name=A", **key).status_code == 200
    assert len(server.world.customers) == 1


def test_it_takes_no_live_key_and_says_that_nothing_is_real(server: StripeServer) -> None:
    live = {"Authorization": "Bearer sk_live_x"}
    answer = post(server, "/v1/customers", "name=A", **live)
    assert answer.status_code == 401
    assert "No money moves here" in answer.text
    made = post(server, "/v1/customers", "name=A")
    assert (made.json()["livemode"], made.headers["X-Not-Real-Money"]) == (False, "true")
    assert "Not real money" in requests.get(server.url, timeout=10).text


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "fake_stripe", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = said.split()[-1]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = requests.post(
            f"{url}/v1/customers", data="name=A", headers={**HEADERS, **form}, timeout=30
        )
        process.terminate()
    assert "No money moves here" in said
    assert json.loads(answer.text)["name"] == "A"
    assert time.time() - answer.json()["created"] < 60
