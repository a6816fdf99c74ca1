"""Every test of billing must leave credit that can be proved."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command


@pytest.fixture(autouse=True)
def _credit_is_proved(request: pytest.FixtureRequest) -> Iterator[None]:
    if "account" in request.fixturenames:
        request.getfixturevalue("account")
    yield
    if "account" in request.fixturenames:
        call_command("audit_credit", verbosity=0)
